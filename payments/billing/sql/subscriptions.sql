-- name: fee_share
-- Our share of each amount, by the tenant's plan.
SELECT p.fee_share FROM payments_subscription s JOIN payments_plan p ON p.id = s.plan_id WHERE s.tenant_id = %(tenant)s;
