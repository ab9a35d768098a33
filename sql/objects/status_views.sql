-- What the monitor and the pooler show of themselves, from shared memory (src/pg/status_views.cpp). They are made here
-- and then moved to pg_catalog, where every search_path finds them.

CREATE FUNCTION pgxc.node_status(
    OUT node_type "char", OUT node_id integer, OUT node_host text, OUT node_port integer, OUT node_master_id integer,
    OUT state text, OUT role_seen text, OUT gate text, OUT timeline integer, OUT "position" pg_lsn,
    OUT lag_bytes bigint, OUT last_seen timestamptz, OUT why text)
RETURNS SETOF record LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'pgxc_node_status';
COMMENT ON FUNCTION pgxc.node_status() IS 'what the monitor knows of each node';

CREATE FUNCTION pgxc.pools(
    OUT worker integer, OUT node_type "char", OUT node_id integer, OUT database text, OUT user_name text,
    OUT clients_active integer, OUT clients_waiting integer, OUT servers_active integer, OUT servers_idle integer,
    OUT servers_connecting integer, OUT longest_wait_ms double precision,
    OUT concurrency_limit integer)
RETURNS SETOF record LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'pgxc_pools';
COMMENT ON FUNCTION pgxc.pools() IS 'server connections and clients for each node, database and user';

CREATE FUNCTION pgxc.pooler_clients(
    OUT client_id bigint, OUT worker integer, OUT user_name text, OUT database text, OUT address text,
    OUT application_name text, OUT state text, OUT why text, OUT node_type "char", OUT node_id integer,
    OUT connected_at timestamptz, OUT transactions bigint)
RETURNS SETOF record LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'pgxc_pooler_clients';
COMMENT ON FUNCTION pgxc.pooler_clients() IS 'the clients of the pooler; details of other roles need pg_read_all_stats';

CREATE VIEW pgxc.pgxc_node_status AS SELECT * FROM pgxc.node_status();
CREATE VIEW pgxc.pgxc_pools AS SELECT * FROM pgxc.pools();
CREATE VIEW pgxc.pgxc_pooler_clients AS SELECT * FROM pgxc.pooler_clients();
GRANT SELECT ON pgxc.pgxc_node_status, pgxc.pgxc_pools, pgxc.pgxc_pooler_clients TO PUBLIC;
ALTER VIEW pgxc.pgxc_node_status SET SCHEMA pg_catalog;
ALTER VIEW pgxc.pgxc_pools SET SCHEMA pg_catalog;
ALTER VIEW pgxc.pgxc_pooler_clients SET SCHEMA pg_catalog;

