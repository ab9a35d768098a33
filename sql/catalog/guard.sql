-- Tables that still have just what CREATE EXTENSION put into them. A superuser's restore (COPY ... FROM) may replace
-- that, once for each table; the first change of the catalog ends it for all.
CREATE TABLE pgxc.as_created (
    table_name name CONSTRAINT as_created_pkey PRIMARY KEY
);
REVOKE ALL ON pgxc.as_created FROM PUBLIC;

CREATE FUNCTION pgxc.guard_nodes() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_guard_nodes';
CREATE FUNCTION pgxc.guard_restore() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_guard_restore';
CREATE FUNCTION pgxc.check_restored_nodes() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_check_restored_nodes';
REVOKE ALL ON FUNCTION pgxc.guard_nodes(), pgxc.guard_restore(), pgxc.check_restored_nodes() FROM PUBLIC;

-- Triggers named in the order in which they are to fire; ALWAYS: session_replication_role is no way round them.
CREATE TRIGGER pgxc_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON pg_catalog.pgxc_nodes
    FOR EACH STATEMENT EXECUTE FUNCTION pgxc.guard_nodes();
CREATE TRIGGER pgxc_restored AFTER INSERT ON pg_catalog.pgxc_nodes
    FOR EACH STATEMENT EXECUTE FUNCTION pgxc.check_restored_nodes();
ALTER TABLE pg_catalog.pgxc_nodes ENABLE ALWAYS TRIGGER pgxc_guard;
ALTER TABLE pg_catalog.pgxc_nodes ENABLE ALWAYS TRIGGER pgxc_restored;

CREATE TRIGGER pgxc_guard BEFORE INSERT ON pgxc.failover_history
    FOR EACH STATEMENT EXECUTE FUNCTION pgxc.guard_restore();
CREATE TRIGGER pgxc_guard BEFORE INSERT ON pgxc.node_record
    FOR EACH STATEMENT EXECUTE FUNCTION pgxc.guard_restore();
ALTER TABLE pgxc.failover_history ENABLE ALWAYS TRIGGER pgxc_guard;
ALTER TABLE pgxc.node_record ENABLE ALWAYS TRIGGER pgxc_guard;

