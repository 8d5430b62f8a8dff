-- name: proof
-- The latest proof of the ledger.
SELECT at, whole, sound, found FROM payments_ledgerproof ORDER BY id DESC LIMIT 1;
