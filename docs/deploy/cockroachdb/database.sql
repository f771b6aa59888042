-- tokenserver_owner makes and changes the tables (`tokenserver init`, `tokenserver db upgrade`); tokenserver, as which
-- the nodes serve, may read and write rows and nothing else. Both sign in by certificate: neither has a password.
CREATE USER IF NOT EXISTS tokenserver_owner;
CREATE USER IF NOT EXISTS tokenserver;
CREATE DATABASE IF NOT EXISTS tokenserver;
ALTER DATABASE tokenserver OWNER TO tokenserver_owner;
REVOKE CONNECT ON DATABASE tokenserver FROM public;
GRANT CONNECT ON DATABASE tokenserver TO tokenserver;
USE tokenserver;
REVOKE CREATE ON SCHEMA public FROM public;
GRANT CREATE, USAGE ON SCHEMA public TO tokenserver_owner;
GRANT USAGE ON SCHEMA public TO tokenserver;
ALTER DEFAULT PRIVILEGES FOR ROLE tokenserver_owner IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tokenserver;
