-- Roles belong to the whole cluster, so that this one may be here already (another database, a restored dump of the
-- roles) and stays when the extension goes: it may have been granted to people and to other databases' objects.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgxc_admin') THEN
        CREATE ROLE pgxc_admin NOLOGIN;
    END IF;
END
$$;

