-- The routing of statements, and pauses. Without a slave: what is tested here is how statements are read.
\set SHOW_CONTEXT never
SET client_min_messages = error;
CREATE EXTENSION pgxc_ha;
RESET client_min_messages;
-- What the server's parser tells of statements, and so where pgxc.read_routing = auto would send them. There is no slave
-- here: the class is what is tested.
SELECT class, s AS statement, reason FROM unnest(ARRAY[
    -- reads
    'SELECT 1', 'select * from t where a = $1', 'VALUES (1)', 'TABLE t', 'WITH x AS (SELECT 1) SELECT * FROM x',
    'SELECT count(*), sum(a), upper(b) FROM t GROUP BY c ORDER BY 1', 'SELECT 1; SELECT 2', 'SELECT random(), pg_catalog.abs(-1)',
    'EXPLAIN SELECT 1', 'EXPLAIN ANALYZE SELECT 1', 'COPY (SELECT 1) TO STDOUT', 'COPY t TO STDOUT',
    'SELECT extract(year FROM d), a[1], b::text, (SELECT 1), coalesce(a, b) FROM t', 'SELECT * FROM pg_stats',
    'SELECT U&''d\0061t'', E''a\''b'', $$x$$, ''it''''s''', '/* comment */ SELECT 1 -- end',
    -- that show when their transaction began
    'SELECT now()', 'SELECT CURRENT_TIMESTAMP', 'SELECT localtime, a FROM t',
    -- transactions
    'BEGIN', 'START TRANSACTION', 'BEGIN ISOLATION LEVEL READ COMMITTED', 'BEGIN ISOLATION LEVEL REPEATABLE READ',
    'BEGIN READ WRITE', 'BEGIN READ ONLY', 'COMMIT', 'END', 'ROLLBACK', 'COMMIT AND CHAIN', 'SAVEPOINT s', 'BEGIN; SELECT 1',
    -- meant for the master
    'SELECT pg_advisory_lock(1)', 'SELECT pg_try_advisory_xact_lock(1)', 'SELECT txid_current()', 'SELECT pg_backend_pid()',
    'SELECT currval(''s'')', 'SELECT lastval()', 'SELECT pg_export_snapshot()', 'SELECT current_setting(''work_mem'')',
    'SELECT * FROM pg_stat_activity', 'SELECT pg_stat_get_numscans(1)', 'SELECT * FROM pg_locks', 'SELECT * FROM t_id_seq',
    'SELECT last_value FROM counter', 'SELECT * FROM pg_temp.t', 'SHOW work_mem', 'SET work_mem = 1', 'SET LOCAL work_mem = 1',
    'LISTEN c', 'NOTIFY c', 'DECLARE c CURSOR FOR SELECT 1', 'FETCH c', 'LOCK t', 'DISCARD ALL', 'EXPLAIN INSERT INTO t SELECT 1',
    'COPY t TO PROGRAM ''cat''', 'COPY t TO ''/tmp/t''',
    -- writes
    'INSERT INTO t VALUES (1)', 'UPDATE t SET a = 1', 'DELETE FROM t', 'SELECT * FROM t FOR UPDATE', 'SELECT * FROM t FOR KEY SHARE',
    'SELECT 1 INTO x', 'CREATE TABLE x AS SELECT 1', 'CREATE TEMP TABLE x (a int)', 'COPY t FROM STDIN', 'TRUNCATE t',
    'WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x', 'SELECT nextval(''s'')', 'SELECT setval(''s'', 1)',
    'SELECT set_config(''a.b'', ''c'', false)', 'SELECT lo_create(0)', 'VACUUM', 'SELECT 1; DROP TABLE t',
    'SELECT a FROM (SELECT nextval(''s'') AS a) x', 'EXPLAIN ANALYZE SELECT nextval(''s'')',
    -- not known
    'SELECT my_function(1)', 'SELECT app.now()', 'SELECT * FROM my_rows()', 'DO $$ BEGIN END $$', 'CALL p()', 'EXECUTE p',
    'PREPARE p AS SELECT 1', 'SELECT FROM WHERE', '', ';', 'SELECT ''unfinished',
    -- ours
    'REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION (''h:1'') ON MASTER 1', 'CALL pgxc.pause(''1'')'
]) WITH ORDINALITY AS u (s, n), pgxc.explain_route(s, 'C', 'auto') ORDER BY n;

-- Longer than what is looked at.
SELECT class, reason FROM pgxc.explain_route('SELECT ' || repeat('1 + ', 5000) || '1', 'C', 'auto');
-- As deep as the parser's own stack allows, and deeper.
SELECT class FROM pgxc.explain_route('SELECT ' || repeat('(', 8000) || '1' || repeat(')', 8000), 'C', 'auto');
-- Backslashes read as the session reads them.
SET standard_conforming_strings = off;
SELECT class FROM pgxc.explain_route($$SELECT 'a\'; DELETE FROM t; --'$$, 'C', 'auto');
SET standard_conforming_strings = on;
SELECT class FROM pgxc.explain_route($$SELECT 'a\'; DELETE FROM t; --'$$, 'C', 'auto');

SELECT class, reason FROM pgxc.explain_route('SELECT 1', 'C', 'explicit');
SELECT class, reason FROM pgxc.explain_route('SELECT 1', 'C', 'master');
SELECT * FROM pgxc.explain_route(NULL);
SELECT * FROM pgxc.explain_route('SELECT 1', 'x');
SELECT * FROM pgxc.explain_route('SELECT 1', 'C', 'sometimes');

CALL pgxc.pause('C');
CALL pgxc.pause(NULL);
CALL pgxc.pause('77');
-- By number, too; what has no type stays a name.
CALL pgxc.pause(77);
CALL pgxc.resume(77);
CALL pgxc.pause(NULL::integer);
CREATE ROLE pgxc_nobody_special;
SET ROLE pgxc_nobody_special;
CALL pgxc.pause('1');
CALL pgxc.resume('1');
CALL pgxc.resume(1);
RESET ROLE;
DROP ROLE pgxc_nobody_special;
DROP EXTENSION pgxc_ha;
