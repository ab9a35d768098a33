-- What the pooler counts, and its server connections (src/pg/statistics_views.cpp). Made and moved as those of
-- status_views.sql.

CREATE FUNCTION pgxc.pooler_servers(
    OUT worker integer, OUT node_type "char", OUT node_id integer, OUT address text, OUT database text, OUT user_name text,
    OUT pid integer, OUT state text, OUT connected_at timestamptz, OUT idle_since timestamptz, OUT client_id bigint,
    OUT transactions bigint, OUT prepared_statements integer, OUT tls boolean)
RETURNS SETOF record LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'pgxc_pooler_servers';
COMMENT ON FUNCTION pgxc.pooler_servers() IS
    'the server connections of the pooler; details of other roles need pg_read_all_stats';

CREATE FUNCTION pgxc.pooler_stats(
    OUT node_type "char", OUT node_id integer, OUT role text, OUT database text, OUT user_name text,
    OUT transactions bigint, OUT queries bigint, OUT errors bigint, OUT bytes_in bigint, OUT bytes_out bigint,
    OUT query_ms double precision, OUT query_p50_ms double precision, OUT query_p95_ms double precision,
    OUT query_p99_ms double precision,
    OUT wait_ms double precision, OUT wait_p50_ms double precision, OUT wait_p95_ms double precision,
    OUT wait_p99_ms double precision, OUT since timestamptz)
RETURNS SETOF record LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'pgxc_pooler_stats';
COMMENT ON FUNCTION pgxc.pooler_stats() IS 'what passed through the pooler for each node, database and user';

CREATE FUNCTION pgxc.reset_pooler_stats() RETURNS void LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'pgxc_reset_pooler_stats';
COMMENT ON FUNCTION pgxc.reset_pooler_stats() IS 'begins pgxc_pooler_stats anew';
REVOKE ALL ON FUNCTION pgxc.reset_pooler_stats() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgxc.reset_pooler_stats() TO pgxc_admin;

CREATE VIEW pgxc.pgxc_pooler_servers AS SELECT * FROM pgxc.pooler_servers();
CREATE VIEW pgxc.pgxc_pooler_stats AS SELECT * FROM pgxc.pooler_stats();
GRANT SELECT ON pgxc.pgxc_pooler_servers, pgxc.pgxc_pooler_stats TO PUBLIC;
ALTER VIEW pgxc.pgxc_pooler_servers SET SCHEMA pg_catalog;
ALTER VIEW pgxc.pgxc_pooler_stats SET SCHEMA pg_catalog;
