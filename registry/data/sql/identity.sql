-- name: name
-- The name of the service, which a migration gave to this database.
SELECT name FROM registry_identity;
