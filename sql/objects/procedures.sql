-- What the statements REGISTER, ALTER and DROP are translated to; the whole interface where the grammar is off. Who may
-- call them is checked in the code (superusers and members of pgxc_admin), for a procedure with SECURITY DEFINER or SET
-- could neither commit nor refuse to run inside a transaction block.
CREATE PROCEDURE pgxc.init()
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_init';
COMMENT ON PROCEDURE pgxc.init() IS
    'adds the masters of pgxc.coordinators and pgxc.datanodes that pgxc_nodes doesn''t have';

CREATE PROCEDURE pgxc.register_master(node_type "char", node_id integer, addresses text[])
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_register_master';
COMMENT ON PROCEDURE pgxc.register_master("char", integer, text[]) IS
    'REGISTER { COORDINATOR | DATANODE } MASTER IDENTIFIED BY ID n WITH CONNECTION (...)';

CREATE PROCEDURE pgxc.register_slave(node_type "char", node_id integer, addresses text[], master_id integer,
                                     replication text DEFAULT NULL)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_register_slave';
COMMENT ON PROCEDURE pgxc.register_slave("char", integer, text[], integer, text) IS
    'REGISTER { COORDINATOR | DATANODE } SLAVE IDENTIFIED BY ID n WITH CONNECTION (...) ON MASTER m [ REPLICATION TO ... ]';

CREATE PROCEDURE pgxc.promote_slave(node_type "char", node_id integer, address text DEFAULT NULL,
                                    with_restart boolean DEFAULT false, force boolean DEFAULT false)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_promote_slave';
COMMENT ON PROCEDURE pgxc.promote_slave("char", integer, text, boolean, boolean) IS
    'ALTER { COORDINATOR | DATANODE } SLAVE n PROMOTE TO MASTER [ WITH CONNECTION (...) ] [ WITH RESTART ] [ FORCE ]';

CREATE PROCEDURE pgxc.set_slave_replication(node_type "char", node_id integer, replication text)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_set_slave_replication';
COMMENT ON PROCEDURE pgxc.set_slave_replication("char", integer, text) IS
    'ALTER { COORDINATOR | DATANODE } SLAVE n REPLICATION TO { SYNCHRONOUS | ASYNCHRONOUS }';

CREATE PROCEDURE pgxc.set_slave_id(node_type "char", node_id integer, new_id integer)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_set_slave_id';
COMMENT ON PROCEDURE pgxc.set_slave_id("char", integer, integer) IS
    'ALTER { COORDINATOR | DATANODE } SLAVE n ID TO k';

CREATE PROCEDURE pgxc.set_slave_master(node_type "char", node_id integer, master_id integer)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_set_slave_master';
COMMENT ON PROCEDURE pgxc.set_slave_master("char", integer, integer) IS
    'ALTER { COORDINATOR | DATANODE } SLAVE n ON MASTER m';

CREATE PROCEDURE pgxc.drop_slave(node_type "char", node_id integer)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_drop_slave';
COMMENT ON PROCEDURE pgxc.drop_slave("char", integer) IS 'DROP { COORDINATOR | DATANODE } SLAVE n';

CREATE PROCEDURE pgxc.drop_master(node_type "char", node_id integer)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_drop_master';
COMMENT ON PROCEDURE pgxc.drop_master("char", integer) IS 'DROP { COORDINATOR | DATANODE } MASTER n';


-- What the pooler is asked and told (src/pg/route_functions.cpp). Nodes are named as in pgxc.node.
CREATE PROCEDURE pgxc.pause(node text)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_pause';
COMMENT ON PROCEDURE pgxc.pause(text) IS
    'holds new transactions of a datanode group and waits until those that run are over';
CREATE PROCEDURE pgxc.pause(node_id integer)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_pause_id';
COMMENT ON PROCEDURE pgxc.pause(integer) IS 'the same, the group named by a number';

CREATE PROCEDURE pgxc.resume(node text)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_resume';
COMMENT ON PROCEDURE pgxc.resume(text) IS 'lets transactions of a paused datanode group begin again';
CREATE PROCEDURE pgxc.resume(node_id integer)
    LANGUAGE C AS 'MODULE_PATHNAME', 'pgxc_resume_id';
COMMENT ON PROCEDURE pgxc.resume(integer) IS 'the same, the group named by a number';

CREATE FUNCTION pgxc.explain_route(sql text, node text DEFAULT NULL, read_routing text DEFAULT NULL,
                                   OUT class text, OUT target text, OUT reason text)
RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'pgxc_explain_route';
COMMENT ON FUNCTION pgxc.explain_route(text, text, text) IS
    'where the pooler would send a transaction that begins with that statement, and why';
