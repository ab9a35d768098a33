-- The record of the arbiter `local`: what decides which server is the master of a node, and which slaves count. One row
-- for each master, made when the master is registered and at no other time: a missing row is a refusal, not a fresh
-- start.
CREATE TABLE pgxc.node_record (
    node_type "char" NOT NULL,
    node_id integer NOT NULL,
    generation bigint NOT NULL,
    record jsonb NOT NULL,
    CONSTRAINT node_record_pkey PRIMARY KEY (node_type, node_id)
);
COMMENT ON TABLE pgxc.node_record IS 'the local arbiter''s record of each master; changed by compare-and-set only';
REVOKE ALL ON pgxc.node_record FROM PUBLIC;
GRANT SELECT ON pgxc.node_record TO pgxc_admin;

