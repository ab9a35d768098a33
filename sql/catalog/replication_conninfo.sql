-- What primary_conninfo a slave had before the monitor changed it: fencing overwrites it, following needs it again. It
-- may hold a password, so it is for superusers only and in no dump.
CREATE TABLE pgxc.replication_conninfo (
    node_host text COLLATE "C" NOT NULL,
    node_port integer NOT NULL,
    conninfo text NOT NULL,
    CONSTRAINT replication_conninfo_pkey PRIMARY KEY (node_host, node_port)
);
COMMENT ON TABLE pgxc.replication_conninfo IS 'how slaves log in to their masters, as found when they were registered';
REVOKE ALL ON pgxc.replication_conninfo FROM PUBLIC;

