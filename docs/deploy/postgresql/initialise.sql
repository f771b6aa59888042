-- Run once by the image, as the superuser, on an empty data folder.
-- tokenserver_owner makes and changes the tables (`tokenserver init`, `tokenserver db upgrade`); tokenserver, as which
-- the nodes serve, may read and write rows and nothing else. Both sign in by certificate: neither has a password.
CREATE ROLE tokenserver_owner LOGIN;
CREATE ROLE tokenserver LOGIN;
CREATE DATABASE tokenserver OWNER tokenserver_owner;
REVOKE ALL ON DATABASE tokenserver FROM public;
GRANT CONNECT ON DATABASE tokenserver TO tokenserver;
\connect tokenserver
REVOKE ALL ON SCHEMA public FROM public;
GRANT CREATE, USAGE ON SCHEMA public TO tokenserver_owner;
GRANT USAGE ON SCHEMA public TO tokenserver;
ALTER DEFAULT PRIVILEGES FOR ROLE tokenserver_owner IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tokenserver;
