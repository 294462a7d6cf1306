"""What people do in the console: by POST only, by role, audited, and told when it is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from billing.models import Account
from enforcement.controls.policies import publish_policy
from enforcement.ledger import domain as ledger
from enforcement.models import LedgerEntry
from governance.identity.domain import read_key_text
from governance.identity.queries import find_key_principal
from governance.models import ApiKey, AuditEntry, PolicyVersion, User
from governance.policies.operations import build_draft
from tests.factories.tenants import Person, World, system_actor
from tests.integration.test_admin import EVIL, add_budget, gate
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id

NEW_BUDGET = {"project_id": "web", "monthly_limit_usd": "250.50", "basis": "run_rate"}
NEW_GRANT = {"pool": "reserved", "total_amount_usd": "75", "reason": "a welcome"}
DOCUMENT = {
    "schema_version": "valdrix.enforcement.policy.v1",
    "thresholds": {"prod": {"require_approval_from_usd": "500.00"}},
    "rules": [{"id": "r", "when": "input.environment == 'prod'", "effect": "tag"}],
}
EDIT, EDIT_JSON = "governance_policyversion_edit", "governance_policyversion_edit-json"


def signed_in(person: Person, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(User.objects.get(pk=person.user_id))
    return client


def text_of(response: HttpResponse) -> str:
    return response.content.decode()


def url_of(name: str, *arguments: object) -> str:
    return reverse(f"admin:{name}", args=[str(one) for one in arguments])


def publish(world: World, document: dict[str, Any], *, base: int) -> PolicyVersion:
    draft = build_draft(
        version_id=new_id(), document=document, comment="by a test", base_version=base
    )
    return publish_policy(actor=system_actor(world.id), draft=draft)


def count(world: World) -> tuple[int, int, int, int]:
    """Return how many accounts, versions, keys and audit entries a tenant has."""
    with reading(world.id):
        models = (Account, PolicyVersion, ApiKey, AuditEntry)
        return tuple(model.objects.count() for model in models)  # type: ignore[return-value]


def entry_of(world: World, action: str) -> AuditEntry:
    with reading(world.id):
        return AuditEntry.objects.get(action=action)


# Who may do what


def acts_of(world: World) -> dict[str, tuple[str, dict[str, str]]]:
    budget = add_budget(world)
    version = publish(world, DOCUMENT, base=0)
    return {
        "budget": (url_of("billing_account_budget"), NEW_BUDGET),
        "grant": (url_of("billing_account_grant"), NEW_GRANT),
        "change-budget": (
            url_of("billing_account_change-budget", budget.id),
            {"monthly_limit_usd": "9", "basis": "run_rate"},
        ),
        "edit": (url_of(EDIT), {"base_version": "1", "do": "publish"}),
        "edit-json": (
            url_of(EDIT_JSON),
            {"document": json.dumps(DOCUMENT), "base_version": "1", "do": "publish"},
        ),
        "roll-back": (
            url_of("governance_policyversion_roll-back", version.number),
            {"base_version": "1"},
        ),
        "issue": (
            url_of("governance_apikey_issue"),
            {"name": "ci", "role": "member", "person_id": str(world.member.user_id)},
        ),
        "rotate": (url_of("governance_apikey_rotate", world.owner.key_id), {}),
        "revoke": (url_of("governance_apikey_revoke", world.owner.key_id), {}),
        "register-issuer": (
            url_of("governance_workloadissuer_register"),
            {
                "name": "ci",
                "issuer": "https://gitlab.com",
                "project_id": "web",
                "conditions": "project_id = 1",
                "person_id": str(world.member.user_id),
            },
        ),
        "register-run-task": (
            url_of("governance_integration_register"),
            {"name": "hcp", "person_id": str(world.member.user_id)},
        ),
    }


def test_acts_are_for_their_roles_and_happen_by_post_only(tenant: World) -> None:
    acts = acts_of(tenant)
    for_owners = {"issue", "rotate", "revoke", "register-issuer", "register-run-task"}
    before = count(tenant)
    for name, (url, fields) in acts.items():
        # To others than owners there are no keys but their own.
        refused = 404 if name in {"rotate", "revoke"} else 403
        assert signed_in(tenant.member).get(url).status_code == refused, name
        assert signed_in(tenant.member).post(url, fields).status_code == refused, name
        if name in for_owners:
            assert signed_in(tenant.admin).post(url, fields).status_code == refused, name
        assert signed_in(tenant.owner).get(url, fields).status_code == 200, name
        assert signed_in(tenant.owner).delete(url).status_code == 405, name
        assert (
            signed_in(tenant.owner, enforce_csrf_checks=True).post(url, fields).status_code == 403
        )
        assert Client().post(url, fields)["Location"].startswith(reverse("admin:login")), name
    assert count(tenant) == before


def test_acts_on_another_tenants_rows_find_nothing(tenant: World, other_tenant: World) -> None:
    budget = add_budget(other_tenant)
    client = signed_in(tenant.owner)
    for url in (
        url_of("billing_account_change-budget", budget.id),
        url_of("governance_apikey_revoke", other_tenant.member.key_id),
        url_of("governance_apikey_rotate", other_tenant.member.key_id),
    ):
        assert client.get(url).status_code == 404
        assert client.post(url, {"monthly_limit_usd": "1"}).status_code == 404
    with reading(other_tenant.id):
        assert Account.objects.get(id=budget.id).monthly_limit_usd == 1000
        assert ApiKey.objects.get(pk=other_tenant.member.key_id).revoked_at is None


def test_buttons_are_shown_to_who_may_press_them(tenant: World) -> None:
    budget = add_budget(tenant)
    page = url_of("billing_account_change", budget.id)
    assert "Change the budget" in text_of(signed_in(tenant.admin).get(page))
    assert "Change the budget" not in text_of(signed_in(tenant.member).get(page))
    assert "Void the grant" not in text_of(signed_in(tenant.admin).get(page))


# Money


def test_a_budget_is_opened_and_changed(tenant: World) -> None:
    client = signed_in(tenant.admin, REMOTE_ADDR="192.0.2.9")
    done = client.post(url_of("billing_account_budget"), NEW_BUDGET, follow=True)
    assert "The budget is open." in text_of(done)
    assert "250.50" in text_of(done)
    entry = entry_of(tenant, "budget.create")
    assert (entry.actor, entry.address) == (f"user:{tenant.admin.user_id}", "192.0.2.9")
    with reading(tenant.id):
        row = Account.objects.get(kind="budget")
        events = list(LedgerEntry.objects.values_list("event", flat=True))
    assert events == [ledger.BUDGET_CREATED]
    fields = {"monthly_limit_usd": "300", "basis": "actuals"}
    changed = client.post(url_of("billing_account_change-budget", row.id), fields, follow=True)
    assert "inactive" in text_of(changed)
    assert entry_of(tenant, "budget.change").after["monthly_limit_usd"] == "300.0000"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"monthly_limit_usd": "1e3"}, "monthly_limit_usd"),
        ({"monthly_limit_usd": "-1"}, "must not be negative"),
        ({"monthly_limit_usd": "NaN"}, "monthly_limit_usd"),
        ({"monthly_limit_usd": ""}, "This field is required"),
        ({"project_id": " "}, "This field is required"),
        ({"project_id": "a\x07b"}, "must not hold control"),
        ({"environment": "moon"}, "Select a valid choice"),
        ({"basis": "moon"}, "Select a valid choice"),
    ],
)
def test_a_wrong_budget_is_refused_at_its_field(
    tenant: World, changes: dict[str, str], said: str
) -> None:
    before = count(tenant)
    response = signed_in(tenant.owner).post(url_of("billing_account_budget"), NEW_BUDGET | changes)
    text = text_of(response)
    assert response.status_code == 422
    assert said in text
    assert "vx-field--wrong" in text
    assert "Nothing was changed" in text
    assert count(tenant) == before


def test_the_same_scope_twice_is_told(tenant: World) -> None:
    client = signed_in(tenant.owner)
    for status in (302, 409):
        assert client.post(url_of("billing_account_budget"), NEW_BUDGET).status_code == status


def test_a_credit_is_granted_and_voided(tenant: World) -> None:
    client = signed_in(tenant.admin)
    fields = NEW_GRANT | {"expires_at": "2099-01-01T00:00", "project_id": "web"}
    page = text_of(client.post(url_of("billing_account_grant"), fields, follow=True))
    assert "The credit is granted." in page
    with reading(tenant.id):
        row = Account.objects.get(kind="grant")
    void = url_of("billing_account_void", row.id)
    assert "is void" in text_of(client.post(void, {"reason": "a mistake"}, follow=True))
    assert entry_of(tenant, "credit.void").after["void_reason"] == "a mistake"
    assert client.post(void, {}).status_code == 409


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"total_amount_usd": "0"}, "must be above 0"),
        ({"expires_at": "2020-01-01T00:00"}, "must be in the future"),
        ({"priority": "-1"}, "greater than or equal to 0"),
        ({"reason": ""}, "This field is required"),
    ],
)
def test_a_wrong_grant_is_refused_at_its_field(
    tenant: World, changes: dict[str, str], said: str
) -> None:
    before = count(tenant)
    response = signed_in(tenant.owner).post(url_of("billing_account_grant"), NEW_GRANT | changes)
    assert response.status_code == 422
    assert said in text_of(response)
    assert count(tenant) == before


def test_a_budget_s_chart_runs_down_with_what_is_taken(tenant: World) -> None:
    budget = add_budget(tenant, limit=1000)
    gate(tenant, estimated_monthly_delta_usd="300.00")
    text = text_of(signed_in(tenant.member).get(url_of("billing_account_change", budget.id)))
    assert re.search(r"700\.00 of 1,000\.00 USD are left on day \d+ of \d+", text)
    assert 'class="vx-chart__area vx-chart__area--left"' in text
    assert "The same as a table" in text


def test_a_grant_s_chart_runs_down_with_what_is_taken(tenant: World) -> None:
    client = signed_in(tenant.owner)
    client.post(url_of("billing_account_grant"), NEW_GRANT)
    add_budget(tenant, limit=250)
    gate(tenant, estimated_monthly_delta_usd="300.00")
    with reading(tenant.id):
        row = Account.objects.get(kind="grant")
    text = text_of(client.get(url_of("billing_account_change", row.id)))
    left = row.remaining_usd
    assert f"{left:,.2f} of 75.00 USD are left" in text


# API keys


def test_an_api_key_is_shown_once_and_works_until_it_is_revoked(tenant: World) -> None:
    client = signed_in(tenant.owner)
    fields = {
        "name": "ci",
        "role": "member",
        "person_id": str(tenant.member.user_id),
        "projects": "web\n\nshop\n",
    }
    response = client.post(url_of("governance_apikey_issue"), fields)
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    (first,) = re.findall(r'value="(vdx_\w+)"', text_of(response))
    principal = find_key_principal(read_key_text(first))
    assert principal is not None
    assert principal.projects == {"web", "shop"}
    with reading(tenant.id):
        key = ApiKey.objects.get(name="ci")
    for url in (url_of("governance_apikey_change", key.pk), url_of("governance_apikey_changelist")):
        assert first not in text_of(client.get(url))
    rotated = client.post(url_of("governance_apikey_rotate", key.pk))
    (second,) = re.findall(r'value="(vdx_\w+)"', text_of(rotated))
    assert find_key_principal(read_key_text(first)) is None
    assert find_key_principal(read_key_text(second)) is not None
    client.post(url_of("governance_apikey_revoke", key.pk))
    assert find_key_principal(read_key_text(second)) is None
    assert client.post(url_of("governance_apikey_rotate", key.pk)).status_code == 409
    with reading(tenant.id):
        actions = set(AuditEntry.objects.values_list("action", flat=True))
    assert {"api-key.issue", "api-key.rotate", "api-key.revoke"} <= actions


def test_a_key_above_its_person_s_role_is_refused_at_the_field(tenant: World) -> None:
    fields = {"name": "ci", "role": "owner", "person_id": str(tenant.member.user_id)}
    before = count(tenant)
    response = signed_in(tenant.owner).post(url_of("governance_apikey_issue"), fields)
    assert response.status_code == 422
    assert "the person is only member" in text_of(response)
    foreign = fields | {"role": "member", "person_id": "1"}
    assert (
        signed_in(tenant.owner).post(url_of("governance_apikey_issue"), foreign).status_code == 422
    )
    assert count(tenant) == before


def test_the_console_shows_nobody_a_key_that_approves_as_another(tenant: World) -> None:
    client, before = signed_in(tenant.owner), count(tenant)
    fields = {"name": "bot", "role": "admin", "scopes": "approve"}
    theirs = fields | {"person_id": str(tenant.admin.user_id)}
    for response in (
        client.post(url_of("governance_apikey_issue"), theirs),
        client.post(url_of("governance_apikey_rotate", tenant.admin.key_id)),
    ):
        assert response.status_code == 403
        assert "only they may take it" in text_of(response)
        assert not re.search(r"vdx_\w{12}_\w{38}", text_of(response))
    assert count(tenant) == before
    own = fields | {"person_id": str(tenant.owner.user_id)}
    assert client.post(url_of("governance_apikey_issue"), own).status_code == 200


# Policies


def members(client: Client) -> dict[str, str]:
    """Return the editor's form as a browser would send it."""
    form = client.get(url_of(EDIT)).context["form"]
    values = {name: form[name].value() for name in form.fields}
    return {name: "" if value is None else str(value) for name, value in values.items()} | {
        "do": "publish"
    }


def test_the_editor_sends_back_what_it_was_given(tenant: World) -> None:
    version = publish(tenant, DOCUMENT, base=0)
    client = signed_in(tenant.admin)
    done = client.post(url_of(EDIT), members(client) | {"comment": "unchanged"}, follow=True)
    assert "Version 2 is published" in text_of(done)
    with reading(tenant.id):
        again = PolicyVersion.objects.get(number=2)
    assert (again.sha256, again.comment) == (version.sha256, "unchanged")


def test_fields_become_members_of_the_document(tenant: World) -> None:
    client = signed_in(tenant.admin)
    changes = {
        "modes.terraform.prod": "soft",
        "approvals.prod.required": "2",
        "approvals.prod.require_second_factor": "true",
        "limits.plan_monthly_ceiling_usd": "1000.00",
        "environments.nonprod": '["dev"]',
    }
    assert client.post(url_of(EDIT), members(client) | changes).status_code == 302
    with reading(tenant.id):
        document = json.loads(PolicyVersion.objects.get().canonical_json)
    assert document == {
        "schema_version": "valdrix.enforcement.policy.v1",
        "modes": {"terraform": {"prod": "soft"}},
        "approvals": {"prod": {"required": 2, "require_second_factor": True}},
        "limits": {"plan_monthly_ceiling_usd": "1000.00"},
        "environments": {"nonprod": ["dev"]},
    }


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("thresholds.prod.deny_from_usd", "many", "must"),
        ("approvals.prod.required", "9", "must be between 1 and 5"),
        ("approvals.prod.required", "two", "must be an integer"),
        ("rules", "[", "This is not JSON"),
        ("rules", '[{"id": "a", "when": "1 +", "effect": "deny"}]', "entry 1, when:"),
        ("rules", '{"id": "a"}', "must be a list"),
        ("freezes", '[{"id": "f", "form": 1}]', "entry 1, form: is not a field of a policy"),
        ("environments.nonprod", '["dev", "dev"]', "entry 2: is in the list twice"),
        ("modes.terraform.prod", "loose", "Select a valid choice"),
    ],
)
def test_lint_speaks_at_the_field(tenant: World, field: str, value: str, said: str) -> None:
    client = signed_in(tenant.admin)
    before = count(tenant)
    for do in ("check", "publish"):
        response = client.post(url_of(EDIT), members(client) | {field: value, "do": do})
        assert response.status_code == 422
        errors = response.context["form"].errors
        assert set(errors) == {field}
        assert said in " ".join(errors[field])
    assert count(tenant) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "This is not JSON"),
        ('{"a": 1, "a": 2}', "This is not JSON"),
        ('{"tresholds": {}}', "/tresholds is not a field of a policy"),
        (
            '{"thresholds": {"prod": {"deny_from_usd": 5}}}',
            "/thresholds/prod/deny_from_usd must be",
        ),
        ("[]", "must be an object"),
        ("\ud83d\ude00" * 3, "This is not JSON"),
    ],
)
def test_lint_speaks_with_pointers_in_the_text(tenant: World, text: str, said: str) -> None:
    fields = {"document": text.encode("utf-16", "surrogatepass").decode("utf-16"), "do": "publish"}
    response = signed_in(tenant.admin).post(url_of(EDIT_JSON), fields | {"base_version": "0"})
    assert response.status_code == 422
    assert said in " ".join(response.context["form"].errors["document"])
    with reading(tenant.id):
        assert not PolicyVersion.objects.exists()


def test_a_check_shows_the_difference_and_writes_nothing(tenant: World) -> None:
    publish(tenant, DOCUMENT | {"modes": {"terraform": {"prod": "soft"}}}, base=0)
    client = signed_in(tenant.admin)
    before = count(tenant)
    changes = {"modes.terraform.prod": "hard", "thresholds.prod.deny_from_usd": "900.00"}
    text = text_of(client.post(url_of(EDIT), members(client) | changes | {"do": "check"}))
    assert "2 differences to version 1" in text
    assert "/thresholds/prod/deny_from_usd" in text
    assert "Stricter from now on: terraform" in text
    assert count(tenant) == before


def test_a_version_published_meanwhile_is_shown_and_not_overwritten_unseen(tenant: World) -> None:
    publish(tenant, DOCUMENT, base=0)
    client = signed_in(tenant.admin)
    mine = members(client) | {"approvals.prod.required": "3"}
    publish(tenant, DOCUMENT | {"context": {"stale_cost_days": 9}}, base=1)
    before = count(tenant)
    conflict = client.post(url_of(EDIT), mine)
    text = text_of(conflict)
    assert conflict.status_code == 409
    assert "What was published meanwhile" in text
    assert "/context" in text
    assert 'value="3"' in text
    assert count(tenant) == before
    based = client.post(url_of(EDIT), mine | {"do": "rebase"})
    assert based.context["form"]["base_version"].value() == "2"
    assert client.post(url_of(EDIT), mine | {"base_version": "2"}).status_code == 302


def test_rolling_back_publishes_the_old_document_anew(tenant: World) -> None:
    first = publish(tenant, DOCUMENT, base=0)
    publish(tenant, {"schema_version": "valdrix.enforcement.policy.v1"}, base=1)
    client = signed_in(tenant.owner)
    url = url_of("governance_policyversion_roll-back", 1)
    page = client.get(url)
    assert "/thresholds" in text_of(page)
    assert page.context["form"]["base_version"].value() == 2
    stale = client.post(url, {"base_version": "1", "comment": "x"})
    assert stale.status_code == 409
    done = client.post(url, {"base_version": "2", "comment": "the threshold was missed"})
    assert done.status_code == 302
    with reading(tenant.id):
        assert PolicyVersion.objects.get(number=3).sha256 == first.sha256
    assert entry_of(tenant, "policy.roll-back").after["rolled_back_to"] == 1


def test_free_text_of_policies_and_money_is_escaped(tenant: World) -> None:
    publish(tenant, DOCUMENT | {"rules": [DOCUMENT["rules"][0] | {"message": EVIL}]}, base=0)
    client = signed_in(tenant.owner)
    client.post(url_of("billing_account_grant"), NEW_GRANT | {"reason": EVIL})
    client.post(
        url_of("governance_apikey_issue"),
        {"name": EVIL, "role": "member", "person_id": str(tenant.member.user_id)},
    )
    with reading(tenant.id):
        grant = Account.objects.get(kind="grant")
        key = ApiKey.objects.get(name=EVIL)
    for url in (
        url_of(EDIT),
        url_of(EDIT_JSON),
        url_of("billing_account_change", grant.id),
        url_of("billing_account_void", grant.id),
        url_of("governance_apikey_change", key.pk),
        url_of("governance_apikey_rotate", key.pk),
    ):
        assert "<script>alert" not in text_of(client.get(url)), url


# The landing page


def test_the_landing_page_tells_open_incidents_to_who_may_know(tenant: World) -> None:
    from tests.integration.test_admin import see_wrong

    home = reverse("admin:index")
    assert "no open incident" in text_of(signed_in(tenant.admin).get(home))
    see_wrong(tenant, "account", kind="ledger_broken", detail="{}")
    assert "Ledger broken" in text_of(signed_in(tenant.admin).get(home))
    assert "Ledger broken" not in text_of(signed_in(tenant.member).get(home))
