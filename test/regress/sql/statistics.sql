--
-- The views of the pooler: columns, who may read and who may reset.
--
\set SHOW_CONTEXT never
SET client_min_messages = error;
CREATE EXTENSION pgxc_ha;
CREATE ROLE regress_nobody;
CREATE ROLE regress_admin IN ROLE pgxc_admin;
RESET client_min_messages;

SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relname IN ('pgxc_pools', 'pgxc_pooler_clients', 'pgxc_pooler_servers', 'pgxc_pooler_stats')
   AND c.relnamespace = 'pg_catalog'::regnamespace
 ORDER BY c.relname, a.attnum;

-- Nothing has passed through the pooler.
SELECT count(*) FROM pgxc_pooler_servers;
SELECT count(*) FROM pgxc_pooler_stats;

SET ROLE regress_nobody;
SELECT count(*) FROM pgxc_pooler_servers;
SELECT count(*) FROM pgxc_pooler_stats;
SELECT pgxc.reset_pooler_stats();
\echo :SQLSTATE
SET ROLE regress_admin;
SELECT pgxc.reset_pooler_stats();
RESET ROLE;
SELECT pgxc.reset_pooler_stats();

-- The limits: units, and what is refused
SHOW pgxc.query_wait_timeout;
SHOW pgxc.server_idle_timeout;
SHOW pgxc.server_lifetime;
SHOW pgxc.client_idle_timeout;
SHOW pgxc.client_login_timeout;
ALTER SYSTEM SET pgxc.query_wait_timeout = '-1';
ALTER SYSTEM SET pgxc.client_login_timeout = '-2';
ALTER SYSTEM SET pgxc.server_lifetime = 'never';
SET pgxc.query_wait_timeout = '1s';
\echo :SQLSTATE

SET client_min_messages = error;
DROP EXTENSION pgxc_ha;
DROP ROLE regress_nobody, regress_admin;
