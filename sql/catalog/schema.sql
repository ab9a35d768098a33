-- complain if the script is sourced in psql rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION pgxc_ha" to load this file. \quit

CREATE SCHEMA pgxc;
GRANT USAGE ON SCHEMA pgxc TO PUBLIC;

