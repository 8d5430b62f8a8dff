from tests.plans import *
from payments import dispatch
def test_it(_database):
    with undone(["payments_attempt","payments_payment"]) as bed:
        bed.empty(restored=False)
        for q in ["SELECT * FROM payments_attempt a WHERE a.tenant_id=$1 AND a.payment_id=$2 AND a.number=$3"]:
            bed.run("PREPARE q(bigint,bigint,int) AS "+q)
            bed.run("SET LOCAL plan_cache_mode=force_generic_plan")
            for off in ["", "payments_attempt_pkey", "attempt_number_once"]:
                with bed.conn.transaction(force_rollback=True):
                    if off: bed.run(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{off}'::regclass")
                    bed.run("DISCARD PLANS") if 0 else None
                    bed.run("SET LOCAL enable_bitmapscan=off")
                    bed.run("SET LOCAL enable_seqscan=off")
                    print(off)
                    for (l,) in bed.run("EXPLAIN (VERBOSE) EXECUTE q(1,2,3)"): print(l)
            print(bed.run("select relname, oid, relpages, reltuples from pg_class where relname ~ '^(payments_attempt|attempt_)' order by oid"))
