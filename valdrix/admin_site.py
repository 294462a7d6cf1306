"""The console: who may come in, which tenant they look at, and which pages there are.

People are Django users. What they may see is decided by their membership in a tenant alone:
``is_staff`` and ``is_superuser`` mean nothing here. The tenant looked at is kept in the session
and checked against the memberships on every request.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DatabaseError
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from unfold.sites import UnfoldAdminSite

from billing.admin.quotas import QuotaCountAdmin
from billing.admin.reservations import ReservationAdmin
from billing.admin.settlements import SettlementAdmin
from billing.models import Account, QuotaCount, Reservation, SettlementRecord
from enforcement.admin.accounts import AccountAdmin
from enforcement.admin.approvals import ApprovalAdmin
from enforcement.admin.decisions import DecisionAdmin
from enforcement.admin.deliveries import DeliveryAdmin
from enforcement.admin.exports import EXPORT_PAGES
from enforcement.admin.ledger import LedgerEntryAdmin
from enforcement.admin.overview import build_overview
from enforcement.admin.people import principal_of
from enforcement.admin.policies import PolicyAdmin
from enforcement.admin.rollout import ROLLOUT_PAGES
from enforcement.admin.run_tasks import RunTaskAdmin
from enforcement.admin.simulations import SIMULATION_PAGES
from enforcement.models import Decision, Delivery, LedgerEntry, RunTask
from enforcement.notifications.links import read_link
from governance.admin.account import account_page
from governance.admin.audit import AuditEntryAdmin
from governance.admin.identity import ApiKeyAdmin
from governance.admin.incidents import IncidentAdmin
from governance.admin.integrations import IntegrationAdmin
from governance.admin.members import MembershipAdmin, ReviewerGroupAdmin
from governance.admin.password import PasswordView
from governance.admin.policies import ForcedModeAdmin
from governance.admin.signing_in import SignInView, end_if_over, second_step
from governance.admin.workloads import WorkloadIssuerAdmin
from governance.identity.queries import tenants_of
from governance.models import (
    ApiKey,
    Approval,
    AuditEntry,
    ForcedMode,
    Incident,
    Integration,
    Membership,
    PolicyVersion,
    ReviewerGroup,
    WorkloadIssuer,
)
from valdrix.charts import TELEMETRY_PAGE
from valdrix.kernel.admin import ConsolePage, Seat, Tenancy, find_seat, seat_of
from valdrix.kernel.db import reading, sqlstate_of

_SESSION_KEY: Final = "console_tenant"
_STATEMENT_TIMEOUT: Final = "57014"
_LINKED: Final = {"approval": "governance_approval", "budget": "billing_account"}
"""What links in messages lead to."""

_MENU: Final[tuple[tuple[str, tuple[tuple[str, str, str, str], ...]], ...]] = (
    (
        "Decide",
        (
            ("Decisions", "gavel", "enforcement_decision", ""),
            ("Approvals", "how_to_reg", "governance_approval", ""),
        ),
    ),
    (
        "Money",
        (
            ("Budgets", "account_balance_wallet", "billing_account", "?kind=budget"),
            ("Credit grants", "redeem", "billing_account", "?kind=grant"),
            ("Reservations", "lock_clock", "billing_reservation", ""),
            ("Settlements", "receipt_long", "billing_settlementrecord", ""),
            ("Metered use", "speed", "billing_quotacount", ""),
        ),
    ),
    (
        "Rules",
        (
            ("Policy versions", "policy", "governance_policyversion", ""),
            ("Forced modes", "emergency_home", "governance_forcedmode", ""),
            ("Simulate on history", "experiment", "simulations", ""),
            ("Rollout", "stairs", "rollout", ""),
        ),
    ),
    (
        "People",
        (
            ("People", "group", "governance_membership", ""),
            ("Reviewer groups", "groups", "governance_reviewergroup", ""),
        ),
    ),
    (
        "Proof",
        (
            ("Ledger", "link", "enforcement_ledgerentry", ""),
            ("Exports", "download", "exports", ""),
            ("Audit log", "manage_search", "governance_auditentry", ""),
            ("Incidents", "report", "governance_incident", ""),
            ("Notifications", "outgoing_mail", "enforcement_delivery", ""),
        ),
    ),
    (
        "Doors",
        (
            ("API keys", "key", "governance_apikey", ""),
            ("Workload issuers", "badge", "governance_workloadissuer", ""),
            ("Integrations", "hub", "governance_integration", ""),
            ("Run tasks", "playlist_add_check", "enforcement_runtask", ""),
        ),
    ),
    ("Observe", (("Telemetry", "monitoring", "telemetry", ""),)),
)
"""Groups of title, icon, list or page, and query: shown as far as the person's role may see it."""

PAGES: Final[tuple[ConsolePage, ...]] = (
    *EXPORT_PAGES,
    *SIMULATION_PAGES,
    *ROLLOUT_PAGES,
    TELEMETRY_PAGE,
)
_PAGE_NAMES: Final = frozenset(page.name for page in PAGES)


class ConsoleSite(UnfoldAdminSite):
    """Django's admin site, with Valdrix's own door, menu and landing page."""

    site_title = "Valdrix"
    index_template = "valdrix/overview.html"

    def has_permission(self, request: HttpRequest) -> bool:
        """Tell whether somebody is signed in."""
        return bool(request.user.is_active)

    def get_urls(self) -> list[URLPattern]:
        """Return the console's routes.

        Django's own list also has routes that read any model by its content type; those know no
        tenant and are left out.
        """
        view = self.admin_view
        routes: list[Any] = [
            path("", view(self.index), name="index"),
            path("login/", self.login, name="login"),
            path("login/code/", self.login_code, name="login_code"),
            path("logout/", view(self.logout), name="logout"),
            path("password_change/", view(self.password_change), name="password_change"),
            path(
                "password_change/done/",
                view(self.password_change_done),
                name="password_change_done",
            ),
            path("account/", view(self.account), name="account"),
            path("jsi18n/", view(self.i18n_javascript, cacheable=True), name="jsi18n"),
            path("tenant/", view(self.choose_tenant), name="choose_tenant"),
            path("go/<str:token>/", view(self.follow), name="follow"),
        ]
        routes += [path(page.route, view(self._serve(page)), name=page.name) for page in PAGES]
        for model, model_admin in self._registry.items():
            prefix = f"{model._meta.app_label}/{model._meta.model_name}/"
            routes += [
                path(f"{prefix}{route.pattern}", route.callback, name=route.name)
                for route in model_admin.get_urls()
            ]
        return routes

    def admin_view(
        self,
        view: Callable[..., Any],
        cacheable: bool = False,  # noqa: FBT001, FBT002 - as Django's
    ) -> Callable[..., Any]:
        """Return a view that only signed-in people reach, with their seat; it refuses as a page."""

        def seated(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if end_if_over(request, now=timezone.now()):
                return redirect_to_login(
                    request.get_full_path(), f"{reverse('admin:login')}?over=1"
                )
            seat = _find_seat(request)
            if seat is not None:
                request.seat = seat  # type: ignore[attr-defined]
            return self._answer(view, request, args, kwargs)

        seated.__name__ = getattr(view, "__name__", "seated")
        return super().admin_view(seated, cacheable)

    def _serve(self, page: ConsolePage) -> Callable[..., HttpResponse]:
        """Return a view that lets in whom the page is for, with what every template is given."""

        def serve(request: HttpRequest, **arguments: Any) -> HttpResponse:
            if seat_of(request).role not in page.roles:
                raise PermissionDenied(f"{page.title} is for {', '.join(page.roles)}.")
            context = {
                **self.each_context(request),
                "title": page.title,
                "crumbs": [(None, page.title)],
            }
            return page.view(request, context, **arguments)

        return serve

    def _answer(
        self, view: Callable[..., Any], request: HttpRequest, args: Any, kwargs: Any
    ) -> HttpResponse:
        try:
            response: HttpResponse = view(request, *args, **kwargs)
        except PermissionDenied:
            return self.refuse(request)
        except Http404:
            return self._message(
                request,
                HTTPStatus.NOT_FOUND,
                "Not found",
                "There is no such page in this tenant. If the address came from a colleague,"
                " check that you look at the same tenant as they did.",
            )
        except SuspiciousOperation:
            return self._message(
                request, HTTPStatus.BAD_REQUEST, "Not understood", "This address cannot be read."
            )
        except DatabaseError as error:
            if sqlstate_of(error) != _STATEMENT_TIMEOUT:
                raise
            return self._message(
                request,
                HTTPStatus.GATEWAY_TIMEOUT,
                "Too much to read",
                "The database stopped reading after its time limit. Narrow the filters.",
            )
        return response

    def refuse(self, request: HttpRequest) -> HttpResponse:
        """Answer a person who may not see a page, and say why."""
        seat = find_seat(request)
        if seat is None:
            title = "You belong to no tenant"
            text = (
                "You are signed in, but no tenant has you as a member. Ask an owner of the tenant"
                " you work for to add you."
            )
        else:
            title = "Not for your role"
            text = (
                f"You are {_a(seat.current.role)} of {seat.current.name}; this page is for others."
                " An owner of the tenant can change your role."
            )
        return self._message(request, HTTPStatus.FORBIDDEN, title, text)

    @method_decorator((sensitive_post_parameters(), never_cache))
    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Answer the first step of signing in; who is signed in goes on to the landing page."""
        if request.method == "GET" and self.has_permission(request):
            return HttpResponseRedirect(reverse("admin:index"))
        to = request.POST.get("next") or request.GET.get("next") or reverse("admin:index")
        context = {
            **self.each_context(request),
            "title": "Sign in",
            "next": to,
            "is_over": "over" in request.GET,
            **(extra_context or {}),
        }
        request.current_app = self.name
        view = SignInView.as_view(extra_context=context, next_page=reverse("admin:index"))
        return cast("HttpResponse", view(request))

    @method_decorator((sensitive_post_parameters(), never_cache))
    def login_code(self, request: HttpRequest) -> HttpResponse:
        """Answer the second step of signing in, for who is in the middle of it."""
        return second_step(request, {**self.each_context(request), "title": "Second step"})

    @method_decorator(sensitive_post_parameters())
    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Answer the page of one's own password; it needs no tenant."""
        request.current_app = self.name
        view = PasswordView.as_view(
            template_name=self.password_change_template or PasswordView.template_name,
            success_url=reverse("admin:password_change_done"),
            extra_context={**self.each_context(request), **(extra_context or {})},
        )
        return cast("HttpResponse", view(request))

    @method_decorator(sensitive_post_parameters())
    def account(self, request: HttpRequest) -> HttpResponse:
        """Answer the page of one's own sign-in; it needs no tenant."""
        title = "Your sign-in"
        crumbs = [(None, title)]
        return account_page(
            request, {**self.each_context(request), "title": title, "crumbs": crumbs}
        )

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Answer the landing page: the tenant's state at a glance."""
        if find_seat(request) is None:
            return self.refuse(request)
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        tenancy = seat_of(request)
        request.current_app = self.name
        with reading(tenancy.tenant_id):
            context = {
                **self.each_context(request),
                "title": "Overview",
                "crumbs": [(None, "Overview")],
                "overview": build_overview(
                    tenancy=tenancy, principal=principal_of(request), now=timezone.now()
                ),
                **(extra_context or {}),
            }
            return TemplateResponse(request, self.index_template, context).render()

    def choose_tenant(self, request: HttpRequest) -> HttpResponse:
        """Change the tenant looked at, by POST, to another one of the person's own."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        seat = find_seat(request)
        if seat is None:
            return self.refuse(request)
        wanted = request.POST.get("tenant", "")
        if wanted not in {str(one.tenant_id) for one in seat.tenancies}:
            raise Http404
        request.session[_SESSION_KEY] = wanted
        return HttpResponseRedirect(reverse("admin:index"))

    def follow(self, request: HttpRequest, token: str) -> HttpResponse:
        """Lead from a message's link to the page that it names, in its tenant; nothing else."""
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        seat, place = find_seat(request), read_link(token)
        if place is None or place.kind not in _LINKED:
            raise Http404
        if seat is None or all(one.tenant_id != place.tenant_id for one in seat.tenancies):
            raise Http404
        request.session[_SESSION_KEY] = str(place.tenant_id)
        name = f"admin:{_LINKED[place.kind]}_change"
        return HttpResponseRedirect(reverse(name, args=[str(place.object_id)]))

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Return what every page's template is given."""
        return {**super().each_context(request), "seat": find_seat(request)}

    def get_app_list(
        self, request: HttpRequest, app_label: str | None = None
    ) -> list[dict[str, Any]]:
        """Return nothing: the menu is Valdrix's own, and there are no pages of apps."""
        return []

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Return the menu, as far as the person's role may see."""
        if find_seat(request) is None:
            return []
        visible = {
            f"{model._meta.app_label}_{model._meta.model_name}"
            for model, model_admin in self._registry.items()
            if model_admin.has_view_permission(request)
        }
        role = seat_of(request).role
        visible |= {page.name for page in PAGES if role in page.roles}
        overview = reverse("admin:index")
        home = {
            "title": "Overview",
            "icon": "space_dashboard",
            "link": overview,
            "active": request.path == overview,
            "has_permission": True,
        }
        groups: list[dict[str, Any]] = [{"items": [home]}]
        for title, entries in _MENU:
            items = [_menu_item(request, entry) for entry in entries if entry[2] in visible]
            groups.append({"title": title, "separator": True, "items": items})
        return [group for group in groups if group["items"]]

    def _message(
        self, request: HttpRequest, status: HTTPStatus, title: str, text: str
    ) -> HttpResponse:
        context = {
            **self.each_context(request),
            "title": title,
            "crumbs": [(None, title)],
            "text": text,
        }
        response = TemplateResponse(request, "valdrix/message.html", context, status=status)
        return response.render()


def _find_seat(request: HttpRequest) -> Seat | None:
    """Return where the signed-in person sits; a tenant that was left meanwhile is forgotten."""
    if isinstance(request.user, AnonymousUser):
        return None
    tenancies = tuple(
        Tenancy(one.tenant_id, one.slug, one.name, one.role) for one in tenants_of(request.user.pk)
    )
    if not tenancies:
        return None
    chosen = request.session.get(_SESSION_KEY)
    current = next((one for one in tenancies if str(one.tenant_id) == chosen), tenancies[0])
    return Seat(current, tenancies)


def _menu_item(request: HttpRequest, entry: tuple[str, str, str, str]) -> dict[str, Any]:
    title, icon, name, query = entry
    url = reverse(f"admin:{name}" if name in _PAGE_NAMES else f"admin:{name}_changelist")
    is_active = request.path.startswith(url)
    if is_active and query:
        shown = request.GET.get("kind", "budget")
        is_active = query == f"?kind={shown}"
    return {
        "title": title,
        "icon": icon,
        "link": url + query,
        "active": is_active,
        "has_permission": True,
    }


def _a(role: str) -> str:
    return f"an {role}" if role[:1] in "aeiou" else f"a {role}"


console: Final = ConsoleSite()
console.register(Decision, DecisionAdmin)
console.register(LedgerEntry, LedgerEntryAdmin)
console.register(Delivery, DeliveryAdmin)
console.register(RunTask, RunTaskAdmin)
console.register(Account, AccountAdmin)
console.register(Reservation, ReservationAdmin)
console.register(SettlementRecord, SettlementAdmin)
console.register(QuotaCount, QuotaCountAdmin)
console.register(Approval, ApprovalAdmin)
console.register(AuditEntry, AuditEntryAdmin)
console.register(Incident, IncidentAdmin)
console.register(Membership, MembershipAdmin)
console.register(ReviewerGroup, ReviewerGroupAdmin)
console.register(ApiKey, ApiKeyAdmin)
console.register(Integration, IntegrationAdmin)
console.register(WorkloadIssuer, WorkloadIssuerAdmin)
console.register(ForcedMode, ForcedModeAdmin)
console.register(PolicyVersion, PolicyAdmin)
