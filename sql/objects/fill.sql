-- Last in order.txt: the masters that the settings name, and from here on the tables are what CREATE EXTENSION made them.
CALL pgxc.init();
INSERT INTO pgxc.as_created VALUES ('pgxc_nodes'), ('failover_history'), ('node_record');

SELECT pg_catalog.pg_extension_config_dump('pg_catalog.pgxc_nodes', '');
SELECT pg_catalog.pg_extension_config_dump('pgxc.failover_history', '');
SELECT pg_catalog.pg_extension_config_dump('pgxc.failover_history_history_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('pgxc.node_record', '');

