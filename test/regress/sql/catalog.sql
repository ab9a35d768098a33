--
-- The catalog: what CREATE EXTENSION makes, who may do what, what a row can't be, and what DROP EXTENSION leaves.
-- Output doesn't depend on the coordinator's settings: its masters are compared, not shown, and then replaced.
--
\set SHOW_CONTEXT never
SET pgxc.check_nodes = off;
-- from a run that was broken off
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_pgxc_nobody;
DROP ROLE IF EXISTS regress_pgxc_admin;
RESET client_min_messages;
CREATE EXTENSION pgxc_ha;

-- the columns
SELECT attname, format_type(atttypid, atttypmod), attnotnull
  FROM pg_attribute WHERE attrelid = 'pg_catalog.pgxc_nodes'::regclass AND attnum > 0 ORDER BY attnum;
SELECT attname, format_type(atttypid, atttypmod), attnotnull
  FROM pg_attribute WHERE attrelid = 'pgxc.failover_history'::regclass AND attnum > 0 ORDER BY attnum;
SELECT attname, format_type(atttypid, atttypmod), attnotnull
  FROM pg_attribute WHERE attrelid = 'pgxc.node_record'::regclass AND attnum > 0 ORDER BY attnum;

-- the masters of the settings are there, and nothing else
CREATE VIEW listed AS
    SELECT t AS node_type, btrim(split_part(entry, '=', 1))::int AS node_id, btrim(split_part(entry, '=', 2)) AS address
      FROM (VALUES ('C'::"char", 'pgxc.coordinators'), ('D', 'pgxc.datanodes')) AS s (t, name),
           regexp_split_to_table(current_setting(name), ',') AS entry
     WHERE btrim(entry) <> '';
CREATE VIEW registered AS
    SELECT node_type, node_id, node_host || ':' || node_port AS address FROM pgxc_nodes;
SELECT count(*) AS differences
  FROM ((TABLE listed EXCEPT TABLE registered) UNION ALL (TABLE registered EXCEPT TABLE listed)) AS d;
SELECT bool_and(node_master_id = 0 AND node_replication IS NULL AND node_epoch = 0) IS NOT FALSE AS all_masters
  FROM pgxc_nodes;
-- each with a record of the arbiter
SELECT count(*) AS differences FROM pgxc_nodes FULL JOIN pgxc.node_record USING (node_type, node_id)
 WHERE generation IS DISTINCT FROM 1 OR record IS DISTINCT FROM '{}' OR node_host IS NULL;
SELECT count(*) FROM pgxc.failover_history;
-- init() adds what is missing, and nothing is
CALL pgxc.init();
SELECT count(*) AS differences
  FROM ((TABLE listed EXCEPT TABLE registered) UNION ALL (TABLE registered EXCEPT TABLE listed)) AS d;
DROP VIEW listed, registered;

-- masters of our own
SET client_min_messages = error;
DO $$
DECLARE
    node record;
BEGIN
    FOR node IN SELECT node_type, node_id FROM pgxc_nodes LOOP
        CALL pgxc.drop_master(node.node_type, node.node_id);
    END LOOP;
END
$$;
RESET client_min_messages;
SELECT count(*) FROM pgxc_nodes;
SELECT count(*) FROM pgxc.node_record;
CALL pgxc.register_master('D', 1, ARRAY['datanode-1:5001']);
CALL pgxc.register_master('D', 2, ARRAY['[::1]:5002']);
CALL pgxc.register_slave('D', 3, ARRAY['datanode-3:5003'], 1, 'asynchronous');
SELECT * FROM pgxc_nodes ORDER BY node_type, node_id;
SELECT * FROM pgxc.node_record ORDER BY node_type, node_id;

-- nobody changes it by hand, not even a superuser
INSERT INTO pgxc_nodes VALUES ('D', 9, 'h', 1, 0, NULL, 0);
\echo :SQLSTATE
UPDATE pgxc_nodes SET node_port = 1;
\echo :SQLSTATE
DELETE FROM pgxc_nodes;
\echo :SQLSTATE
TRUNCATE pgxc_nodes;
\echo :SQLSTATE
SET session_replication_role = replica;
DELETE FROM pgxc_nodes WHERE node_id = 3;
RESET session_replication_role;
-- a restore is for what is as CREATE EXTENSION made it
COPY pgxc_nodes FROM stdin;
D	9	h	1	0	\N	0
\.
COPY pgxc.node_record FROM stdin;
D	9	1	{}
\.
-- and no trigger's side effect
CREATE TABLE bait (i int);
CREATE FUNCTION bite() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO pgxc_nodes VALUES ('D', 9, 'h', 1, 0, NULL, 0); RETURN NEW; END $$;
CREATE TRIGGER bite BEFORE INSERT ON bait FOR EACH ROW EXECUTE FUNCTION bite();
COPY bait FROM stdin;
1
\.
DROP TABLE bait;
DROP FUNCTION bite();
-- nor are our trigger functions for others
CREATE TABLE mine (i int);
CREATE TRIGGER t BEFORE INSERT ON mine FOR EACH STATEMENT EXECUTE FUNCTION pgxc.guard_nodes();
INSERT INTO mine VALUES (1);
DROP TABLE mine;
SELECT count(*) FROM pgxc_nodes;

-- everybody may read
CREATE ROLE regress_pgxc_nobody;
CREATE ROLE regress_pgxc_admin;
GRANT pgxc_admin TO regress_pgxc_admin;
SET ROLE regress_pgxc_nobody;
SELECT count(*) FROM pgxc_nodes;
SELECT count(*) FROM pgxc.failover_history;
SELECT count(*) FROM pgxc.node_record;
DELETE FROM pgxc_nodes;
INSERT INTO pgxc.failover_history (epoch, node_type, node_id) VALUES (1, 'D', 1);
INSERT INTO pgxc.node_record VALUES ('D', 9, 1, '{}');
CALL pgxc.drop_slave('D', 3);
\echo :SQLSTATE
CALL pgxc.init();
\echo :SQLSTATE
RESET ROLE;
SET ROLE regress_pgxc_admin;
SELECT count(*) FROM pgxc.node_record;
DELETE FROM pgxc_nodes;
INSERT INTO pgxc.node_record VALUES ('D', 9, 1, '{}');
CALL pgxc.drop_slave('D', 3);
CALL pgxc.register_slave('D', 3, ARRAY['datanode-3:5003'], 1, 'asynchronous');
-- who may change the nodes gets no other right by it: names are looked up in pg_catalog, whatever the caller's path
CREATE SCHEMA regress_pgxc_evil;
\echo :SQLSTATE
RESET ROLE;
CREATE SCHEMA regress_pgxc_evil AUTHORIZATION regress_pgxc_admin;
SET ROLE regress_pgxc_admin;
CREATE FUNCTION regress_pgxc_evil.eq("char", "char") RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'evil, as %', current_user; END $$;
CREATE OPERATOR regress_pgxc_evil.= (FUNCTION = regress_pgxc_evil.eq, LEFTARG = "char", RIGHTARG = "char");
SET search_path = regress_pgxc_evil, pg_catalog;
CALL pgxc.drop_slave('D', 3);
CALL pgxc.register_slave('D', 3, ARRAY['datanode-3:5003'], 1, 'asynchronous');
RESET search_path;
RESET ROLE;
DROP SCHEMA regress_pgxc_evil CASCADE;
DROP ROLE regress_pgxc_nobody;
DROP ROLE regress_pgxc_admin;

-- what a row can't be, should anyone get round the statements
ALTER TABLE pg_catalog.pgxc_nodes DISABLE TRIGGER USER;
\set VERBOSITY terse
INSERT INTO pgxc_nodes VALUES ('X', 9, 'h', 9, 0, NULL, 0);
INSERT INTO pgxc_nodes VALUES ('D', 0, 'h', 9, 0, NULL, 0);
INSERT INTO pgxc_nodes VALUES ('D', 9, '', 9, 0, NULL, 0);
INSERT INTO pgxc_nodes VALUES ('D', 9, 'h', 0, 0, NULL, 0);
INSERT INTO pgxc_nodes VALUES ('D', 9, 'h', 65536, 0, NULL, 0);
INSERT INTO pgxc_nodes VALUES ('D', 9, 'h', 9, 9, 'a', 0);
INSERT INTO pgxc_nodes VALUES ('D', 9, 'h', 9, -1, 'a', 0);
INSERT INTO pgxc_nodes VALUES ('D', 9, 'h', 9, 1, 'x', 0);
INSERT INTO pgxc_nodes VALUES ('D', 9, 'h', 9, 1, NULL, 0);
INSERT INTO pgxc_nodes VALUES ('D', 9, 'h', 9, 0, 's', 0);
INSERT INTO pgxc_nodes VALUES ('D', 9, 'h', 9, 0, NULL, -1);
INSERT INTO pgxc_nodes VALUES ('D', 1, 'h', 9, 0, NULL, 0);
INSERT INTO pgxc_nodes VALUES ('D', 9, 'datanode-1', 5001, 0, NULL, 0);
\set VERBOSITY default
ALTER TABLE pg_catalog.pgxc_nodes ENABLE ALWAYS TRIGGER pgxc_guard, ENABLE ALWAYS TRIGGER pgxc_restored;

-- nothing stays behind but the role, which belongs to the whole cluster
DROP EXTENSION pgxc_ha;
SELECT count(*) FROM pg_class WHERE relname LIKE '%pgxc%' OR relname IN ('failover_history', 'failover_evidence', 'node_record', 'as_created');
SELECT count(*) FROM pg_namespace WHERE nspname = 'pgxc';
SELECT count(*) FROM pg_proc WHERE probin LIKE '%pgxc_ha%';
SELECT count(*) FROM pg_depend d WHERE d.refclassid = 'pg_extension'::regclass
   AND NOT EXISTS (SELECT FROM pg_extension e WHERE e.oid = d.refobjid);
SELECT count(*) FROM pg_roles WHERE rolname = 'pgxc_admin';
SELECT * FROM pgxc_nodes;
-- and it can come again
CREATE EXTENSION pgxc_ha;
SELECT to_regclass('pg_catalog.pgxc_nodes') IS NOT NULL AS there;
DROP EXTENSION pgxc_ha;
