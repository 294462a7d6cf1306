from datetime import datetime, UTC
from decimal import Decimal
import pytest
from billing.models import Reservation, Charge
from enforcement.integrity.queries import run_checks
from enforcement.reconciliation.operations import reconcile_overdue
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import find_differences
from tests.factories.tenants import World, system_actor
from valdrix.kernel.db import transaction, reading
PAST=datetime(2020,1,1,tzinfo=UTC)
def rec(shop,d,a):
    return Api().post(f"reservations/{d['decision_id']}/reconcile",{"actual_monthly_delta_usd":a},key=shop.world.admin.key)
def v(t): return [(f.invariant.name,f.examples[:2]) for f in run_checks(t.id).violated]
def cross(shop):
    p=shop.ask("300.00",key="p",resource_reference="p")
    a=shop.ask("200.00",key="a",resource_reference="x",run_id="r1")
    b=shop.ask("250.00",key="b",resource_reference="x",run_id="r1",parent_decision_id=p["decision_id"])
    return p,a,b
def test_cross_release(tenant):
    shop=Shop(tenant); bud=shop.budget("1000.00")
    p,a,b=cross(shop)
    print("clean",v(tenant),find_differences(tenant.id))
    with transaction(tenant.id):
        Reservation.objects.filter(tenant_id=tenant.id,decision_id__in=[a["decision_id"],b["decision_id"]]).update(due_at=PAST)
    print(reconcile_overdue(actor=system_actor(tenant.id)))
    print("released",v(tenant),find_differences(tenant.id))
def test_cross_settle(tenant):
    shop=Shop(tenant); bud=shop.budget("1000.00")
    p,a,b=cross(shop)
    print(rec(shop,a,"250.00").json())
    print("settled",v(tenant),find_differences(tenant.id), shop.budget_state(bud))
    print(rec(shop,p,"300.00").json()); print(shop.budget_state(bud), v(tenant))
def test_kept_total_low(tenant, owner_cursor):
    shop=Shop(tenant); bud=shop.budget("1000.00")
    a=shop.ask("300.00",key="a",resource_reference="1"); b=shop.ask("50.00",key="b",resource_reference="2")
    owner_cursor.execute("update billing_account set pending_usd=10 where id=%s",[bud])
    try: r=rec(shop,a,"300.00"); print(r.status_code, r.json())
    except Exception as e: print("RAISED",type(e),str(e)[:120])
    with transaction(tenant.id): Reservation.objects.filter(tenant_id=tenant.id).update(due_at=PAST)
    try: print(reconcile_overdue(actor=system_actor(tenant.id)))
    except Exception as e: print("OVERDUE RAISED",type(e),str(e)[:120])
def test_pending(tenant):
    shop=Shop(tenant, thresholds={"prod":{"require_approval_from_usd":"100.00"},"nonprod":{"require_approval_from_usd":"100.00"}}); bud=shop.budget("1000.00")
    a=shop.ask("300.00"); print(a["decision"])
    r=rec(shop,a,"300.00"); print(r.status_code, v(tenant))
def test_deadlock(tenant, run_in_threads):
    shop=Shop(tenant); bud=shop.budget("100000.00")
    from collections import Counter
    out=Counter()
    for i in range(12):
        p=shop.ask("10.00",key=f"p{i}",resource_reference=f"p{i}")
        c=shop.ask("20.00",key=f"c{i}",resource_reference=f"c{i}",parent_decision_id=p["decision_id"],run_id=f"run{i}")
        def work(n):
            if n==0: 
                r=rec(shop,p,"25.00"); return r.status_code, r.json().get("code")
            r=shop.ask("30.00" if n==1 else "35.00",key=f"g{i}-{n}",resource_reference=f"c{i}",run_id=f"run{i}"); return r["decision"], r["reason_codes"]
        for r in run_in_threads(4,work): out[str(r)]+=1
    print(out); print(v(tenant), find_differences(tenant.id))
