--
-- The procedures that REGISTER, ALTER and DROP are translated to. The nodes don't exist: pgxc.check_nodes is off.
--
\set SHOW_CONTEXT never
SET pgxc.check_nodes = off;
SET client_min_messages = error;
CREATE EXTENSION pgxc_ha;
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

-- REGISTER MASTER
CALL pgxc.register_master('D', 1, ARRAY['d1:5001']);
CALL pgxc.register_master('D', 2, ARRAY['d2:5002']);
CALL pgxc.register_master('D', 1, ARRAY['d9:5009']);
\echo :SQLSTATE
CALL pgxc.register_master('D', 9, ARRAY['d1:5001']);
\echo :SQLSTATE
CALL pgxc.register_master('D', 0, ARRAY['d9:5009']);
\echo :SQLSTATE
CALL pgxc.register_master('X', 9, ARRAY['d9:5009']);
\echo :SQLSTATE
CALL pgxc.register_master('D', 9, ARRAY['d9']);
\echo :SQLSTATE
CALL pgxc.register_master('D', 9, ARRAY['::1:5009']);
CALL pgxc.register_master('D', 9, ARRAY['d9:70000']);
CALL pgxc.register_master('D', 9, ARRAY['']);
CALL pgxc.register_master('D', 9, ARRAY[]::text[]);
CALL pgxc.register_master('D', 9, ARRAY['d9:5009', NULL]);
\echo :SQLSTATE
CALL pgxc.register_master('D', 9, NULL);
CALL pgxc.register_master('D', NULL, ARRAY['d9:5009']);
CALL pgxc.register_master(NULL, 9, ARRAY['d9:5009']);
SELECT * FROM pgxc_nodes ORDER BY node_type, node_id;

-- REGISTER SLAVE
CALL pgxc.register_slave('D', 3, ARRAY['d3:5003'], 1);
CALL pgxc.register_slave('D', 4, ARRAY['d4:5004'], 1, 's');
CALL pgxc.register_slave('D', 5, ARRAY['d5:5005'], 3, 'Asynchronous');
CALL pgxc.register_slave(node_type => 'D', node_id => 6, master_id => 2, addresses => '{d6:5006}', replication => 'A');
SELECT * FROM pgxc_nodes ORDER BY node_type, node_id;
CALL pgxc.register_slave('D', 4, ARRAY['d9:5009'], 1);
\echo :SQLSTATE
CALL pgxc.register_slave('D', 9, ARRAY['d4:5004'], 1);
\echo :SQLSTATE
CALL pgxc.register_slave('D', 9, ARRAY['d9:5009'], 8);
\echo :SQLSTATE
CALL pgxc.register_slave('C', 9, ARRAY['d9:5009'], 1);
\echo :SQLSTATE
CALL pgxc.register_slave('D', 9, ARRAY['d9:5009'], 9);
CALL pgxc.register_slave('D', -9, ARRAY['d9:5009'], 1);
CALL pgxc.register_slave('D', 9, ARRAY['d9:5009'], 3, 'synchronous');
\echo :SQLSTATE
CALL pgxc.register_slave('D', 9, ARRAY['d9:5009'], 1, 'sometimes');
\echo :SQLSTATE
CALL pgxc.register_slave('D', 9, ARRAY['d9:5009'], NULL);

-- several coordinators: an address for each, in the order of their ids
CALL pgxc.register_slave('D', 9, ARRAY['d9:5009', 'd9:6009'], 1);
\echo :SQLSTATE
SET client_min_messages = error;
SELECT current_setting('pgxc.node_id')::int AS own \gset
CALL pgxc.register_master('C', :own, ARRAY['c1:5432']);
SELECT :own + 1 AS other \gset
CALL pgxc.register_master('C', :other, ARRAY['c2:5432', 'c2:6432']);
CALL pgxc.register_master('C', :other, ARRAY['c2:5432']);
CALL pgxc.register_slave('D', 9, ARRAY['near:5009', 'far:6009'], 1);
CALL pgxc.register_slave('D', 10, ARRAY['near:5009', 'far:6009', 'further:7009'], 1);
CALL pgxc.register_slave('D', 10, ARRAY['near:5010', 'far'], 1);
SELECT node_host, node_port FROM pgxc_nodes WHERE node_id = 9;
RESET client_min_messages;
-- (a coordinator whose pgxc.node_id isn't 1 prints other ids here)
CALL pgxc.drop_slave('D', 9);
SET client_min_messages = error;
CALL pgxc.drop_master('C', :other);
CALL pgxc.drop_master('C', :own);
RESET client_min_messages;

-- ALTER ... REPLICATION TO
CALL pgxc.set_slave_replication('D', 3, 'synchronous');
CALL pgxc.set_slave_replication('D', 3, 'S');
CALL pgxc.set_slave_replication('D', 5, 's');
\echo :SQLSTATE
CALL pgxc.set_slave_replication('D', 1, 's');
\echo :SQLSTATE
CALL pgxc.set_slave_replication('D', 3, '');
CALL pgxc.set_slave_replication('D', 3, NULL);
CALL pgxc.set_slave_replication('D', 77, 's');
\echo :SQLSTATE
SELECT node_id, node_replication FROM pgxc_nodes WHERE node_id = 3;

-- ALTER ... ID TO: slaves of the slave follow
CALL pgxc.set_slave_id('D', 3, 30);
SELECT node_id, node_master_id FROM pgxc_nodes WHERE node_id IN (3, 5, 30) ORDER BY node_id;
CALL pgxc.set_slave_id('D', 30, 3);
CALL pgxc.set_slave_id('D', 3, 3);
CALL pgxc.set_slave_id('D', 3, 1);
\echo :SQLSTATE
CALL pgxc.set_slave_id('D', 3, 0);
\echo :SQLSTATE
CALL pgxc.set_slave_id('D', 1, 11);
\echo :SQLSTATE

-- ALTER ... ON MASTER
CALL pgxc.set_slave_master('D', 5, 1);
CALL pgxc.set_slave_master('D', 5, 4);
CALL pgxc.set_slave_master('D', 4, 5);
\echo :SQLSTATE
CALL pgxc.set_slave_master('D', 5, 5);
CALL pgxc.set_slave_master('D', 3, 5);
\echo :SQLSTATE
CALL pgxc.set_slave_master('D', 5, 77);
\echo :SQLSTATE
CALL pgxc.set_slave_master('D', 1, 2);
SELECT * FROM pgxc_nodes ORDER BY node_type, node_id;

-- DROP
CALL pgxc.drop_master('D', 1);
\echo :SQLSTATE
CALL pgxc.drop_slave('D', 4);
\echo :SQLSTATE
CALL pgxc.drop_slave('D', 1);
\echo :SQLSTATE
CALL pgxc.drop_master('D', 3);
\echo :SQLSTATE
CALL pgxc.drop_slave('D', 77);
\echo :SQLSTATE
CALL pgxc.drop_slave('D', 5);
CALL pgxc.drop_slave('D', 6);
CALL pgxc.drop_master('D', 2);
SELECT * FROM pgxc_nodes ORDER BY node_type, node_id;
SELECT node_type, node_id FROM pgxc.node_record ORDER BY node_type, node_id;

-- in a transaction: valid at commit, gone with a rollback, and seen by nobody before
BEGIN;
CALL pgxc.register_slave('D', 7, ARRAY['d7:5007'], 1, 's');
CALL pgxc.set_slave_id('D', 7, 8);
SAVEPOINT s;
CALL pgxc.register_slave('D', 7, ARRAY['d7:5007'], 1);
ROLLBACK TO s;
SELECT node_id FROM pgxc_nodes WHERE node_id > 4 ORDER BY node_id;
ROLLBACK;
SELECT node_id FROM pgxc_nodes WHERE node_id > 4 ORDER BY node_id;
BEGIN;
CALL pgxc.register_slave('D', 7, ARRAY['d7:5007'], 1);
CALL pgxc.register_slave('D', 7, ARRAY['d7:5008'], 1);
COMMIT;
SELECT node_id FROM pgxc_nodes WHERE node_id > 4 ORDER BY node_id;
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL pgxc.register_slave('D', 7, ARRAY['d7:5007'], 1);
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
CALL pgxc.register_slave('D', 7, ARRAY['d7:5007'], 1);
\echo :SQLSTATE
ROLLBACK;
-- in PL/pgSQL, with and without a transaction of its own
DO $$
BEGIN
    CALL pgxc.register_slave('D', 7, ARRAY['d7:5007'], 1, 's');
    EXECUTE $call$ CALL pgxc.register_slave('D', 8, ARRAY['d8:5008'], 1) $call$;
    BEGIN
        CALL pgxc.register_slave('D', 8, ARRAY['d8:5008'], 1);
    EXCEPTION WHEN duplicate_object THEN
        RAISE NOTICE 'caught: %', SQLERRM;
    END;
END
$$;
SELECT node_id FROM pgxc_nodes WHERE node_id > 4 ORDER BY node_id;
-- several in one string are one transaction
CALL pgxc.drop_slave('D', 7) \; CALL pgxc.drop_slave('D', 8) \; CALL pgxc.drop_slave('D', 77);
CALL pgxc.drop_slave('D', 7) \; CALL pgxc.drop_slave('D', 8);
SELECT node_id FROM pgxc_nodes WHERE node_id > 4 ORDER BY node_id;

-- PROMOTE
CALL pgxc.promote_slave('D', 77);
\echo :SQLSTATE
CALL pgxc.promote_slave('D', 1);
\echo :SQLSTATE
CALL pgxc.register_slave('D', 5, ARRAY['d5:5005'], 1, 'a');
CALL pgxc.promote_slave('D', 5);
\echo :SQLSTATE
CALL pgxc.promote_slave('D', 3, 'nonsense');
\echo :SQLSTATE
CALL pgxc.promote_slave('D', 3, '');
CALL pgxc.promote_slave('D', 3, ':99999');
CALL pgxc.promote_slave('D', 3, 'd4:5004');
\echo :SQLSTATE
CALL pgxc.promote_slave('D', 3, with_restart => NULL);
BEGIN;
CALL pgxc.promote_slave('D', 3);
\echo :SQLSTATE
ROLLBACK;
DO $$ BEGIN CALL pgxc.promote_slave('D', 3); EXCEPTION WHEN active_sql_transaction THEN RAISE NOTICE '%', SQLERRM; END $$;
SELECT 1 AS one \; CALL pgxc.promote_slave('D', 3);
\echo :SQLSTATE

DROP EXTENSION pgxc_ha;
