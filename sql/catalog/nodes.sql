-- All nodes. What a single row can say of itself is checked here; what rows say of each other (a slave's master
-- exists, no circles, ...) is checked by catalog/topology_rules of the library.
CREATE TABLE pgxc.pgxc_nodes (
    node_type "char" NOT NULL
        CONSTRAINT pgxc_nodes_type_check CHECK (node_type IN ('C', 'D')),
    node_id integer NOT NULL
        CONSTRAINT pgxc_nodes_id_check CHECK (node_id > 0),
    node_host text COLLATE "C" NOT NULL
        CONSTRAINT pgxc_nodes_host_check CHECK (node_host <> ''),
    node_port integer NOT NULL
        CONSTRAINT pgxc_nodes_port_check CHECK (node_port BETWEEN 1 AND 65535),
    node_master_id integer NOT NULL DEFAULT 0
        CONSTRAINT pgxc_nodes_master_check CHECK (node_master_id >= 0 AND node_master_id <> node_id),
    node_replication "char"
        CONSTRAINT pgxc_nodes_replication_check CHECK (node_replication IN ('s', 'a')),
    node_epoch bigint NOT NULL DEFAULT 0
        CONSTRAINT pgxc_nodes_epoch_check CHECK (node_epoch >= 0),
    CONSTRAINT pgxc_nodes_pkey PRIMARY KEY (node_type, node_id),
    CONSTRAINT pgxc_nodes_address_key UNIQUE (node_host, node_port),
    CONSTRAINT pgxc_nodes_master_has_no_replication CHECK ((node_master_id = 0) = (node_replication IS NULL))
);
COMMENT ON TABLE pgxc.pgxc_nodes IS 'masters and slaves of the cluster, as this coordinator reaches them';
COMMENT ON COLUMN pgxc.pgxc_nodes.node_type IS 'C = coordinator, D = datanode';
COMMENT ON COLUMN pgxc.pgxc_nodes.node_id IS 'unique within its type';
COMMENT ON COLUMN pgxc.pgxc_nodes.node_host IS 'host name or address as this coordinator reaches it';
COMMENT ON COLUMN pgxc.pgxc_nodes.node_master_id IS
    'node_id of the immediate master (itself a slave: cascading replication); 0 for a master';
COMMENT ON COLUMN pgxc.pgxc_nodes.node_replication IS 's = synchronous, a = asynchronous; NULL for a master';
COMMENT ON COLUMN pgxc.pgxc_nodes.node_epoch IS 'for a master: how many times this node has changed its master';

-- Nobody may create a table in pg_catalog, but one may be moved there: so every session sees it under its bare name.
ALTER TABLE pgxc.pgxc_nodes SET SCHEMA pg_catalog;
REVOKE ALL ON pg_catalog.pgxc_nodes FROM PUBLIC;
GRANT SELECT ON pg_catalog.pgxc_nodes TO PUBLIC;

