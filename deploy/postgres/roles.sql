-- The roles and the database of Valdrix, for psql 15 or later, run by a superuser.
-- It may be run again: it then sets attributes and passwords anew.
--
--   psql -v owner_password=… -v app_password=… -v telemetry_password=… -f roles.sql
--
-- or with VALDRIX_OWNER_PASSWORD, VALDRIX_APP_PASSWORD and VALDRIX_TELEMETRY_PASSWORD in the
-- environment, which keeps the passwords off the command line. The embedded server of `make run` and the PostgreSQL container of
-- docker-compose.yml are set up by this same file.
--
-- valdrix_owner  owns the database and everything in it; runs migrations, and nothing else does.
-- valdrix_app    what the application, its jobs and the tests connect as. It is neither owner nor
--                superuser and cannot bypass row-level security, so the policies always apply to it.
--                What it may do with each table is granted by the migrations that make the table.
-- valdrix_telemetry  what telemetry's own connections use. It may use telemetry's tables, by what
--                `manage.py migrate` grants it, and nothing else. It is optional: without a
--                password it is not made, and telemetry stays off.

\set ON_ERROR_STOP on
\set QUIET on

\if :{?owner_password}
\else
  \getenv owner_password VALDRIX_OWNER_PASSWORD
\endif
\if :{?app_password}
\else
  \getenv app_password VALDRIX_APP_PASSWORD
\endif
\if :{?telemetry_password}
\else
  \getenv telemetry_password VALDRIX_TELEMETRY_PASSWORD
\endif
\if :{?telemetry_password}
\else
  \set telemetry_password ''
\endif
-- A variable that is still missing is a syntax error here, before anything was changed.
SELECT :'owner_password' <> '' AND :'app_password' <> '' AS passwords_given \gset
\if :passwords_given
\else
  DO $$ BEGIN RAISE EXCEPTION 'the passwords of valdrix_owner and valdrix_app must not be empty'; END $$;
\endif

SELECT 'CREATE ROLE valdrix_owner'
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'valdrix_owner') \gexec
SELECT 'CREATE ROLE valdrix_app'
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'valdrix_app') \gexec

-- CREATEDB: the tests create their databases as the owner.
ALTER ROLE valdrix_owner
  LOGIN CREATEDB NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'owner_password';
ALTER ROLE valdrix_app
  LOGIN NOCREATEDB NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT PASSWORD :'app_password';

ALTER ROLE valdrix_owner SET timezone = 'UTC';

-- No statement of the application waits for ever. These are defaults of the role: they hold for
-- every client that connects as it, whatever that client forgets to set.
ALTER ROLE valdrix_app SET timezone = 'UTC';
ALTER ROLE valdrix_app SET lock_timeout = '2s';
ALTER ROLE valdrix_app SET statement_timeout = '30s';
ALTER ROLE valdrix_app SET idle_in_transaction_session_timeout = '30s';

SELECT :'telemetry_password' <> '' AS with_telemetry \gset
\if :with_telemetry
  SELECT 'CREATE ROLE valdrix_telemetry'
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'valdrix_telemetry') \gexec
  -- The limit keeps connections for the application, whatever telemetry does.
  ALTER ROLE valdrix_telemetry
    LOGIN NOCREATEDB NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT
    CONNECTION LIMIT 40 PASSWORD :'telemetry_password';
  ALTER ROLE valdrix_telemetry SET timezone = 'UTC';
  ALTER ROLE valdrix_telemetry SET lock_timeout = '300ms';
  ALTER ROLE valdrix_telemetry SET statement_timeout = '5s';
  ALTER ROLE valdrix_telemetry SET idle_in_transaction_session_timeout = '5s';
  ALTER ROLE valdrix_telemetry SET synchronous_commit = off;
\endif

SELECT 'CREATE DATABASE valdrix OWNER valdrix_owner TEMPLATE template0 ENCODING ''UTF8'''
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'valdrix') \gexec

REVOKE ALL ON DATABASE valdrix FROM PUBLIC;
GRANT CONNECT ON DATABASE valdrix TO valdrix_app;
\if :with_telemetry
  GRANT CONNECT ON DATABASE valdrix TO valdrix_telemetry;
\endif

\connect valdrix
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO valdrix_app;
\if :with_telemetry
  GRANT USAGE ON SCHEMA public TO valdrix_telemetry;
\endif
