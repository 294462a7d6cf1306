"""The console's base classes: one tenant's rows, read inside that tenant's transaction.

A page is read *and rendered* inside ``reading(tenant)``: a lazy template that touched a row
afterwards would find no tenant set, and the database would raise.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Final, cast

from django.contrib.admin import ShowFacets, SimpleListFilter
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin
from unfold.views import ChangeList

from valdrix.kernel.admin_acts import Act, answer_act, doing_of
from valdrix.kernel.admin_display import Panel
from valdrix.kernel.db import reading

_READS: Final = ("GET", "HEAD")
_WIDTHS: Final = {1: "wide", 2: "half"}
"""How wide panels are, by how many of them stand side by side."""


@dataclass(frozen=True, slots=True)
class Tenancy:
    """One tenant that the signed-in person belongs to, and the role there."""

    tenant_id: uuid.UUID
    slug: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class Seat:
    """Where the signed-in person sits: the tenant looked at, and the others to choose from."""

    current: Tenancy
    tenancies: tuple[Tenancy, ...]


def find_seat(request: HttpRequest) -> Seat | None:
    """Return the seat that the console's site found for this request, or None without one."""
    return getattr(request, "seat", None)


def seat_of(request: HttpRequest) -> Tenancy:
    """Return the tenant that this request looks at, with the person's role there.

    :raises PermissionDenied: for a person who belongs to none.
    """
    seat = find_seat(request)
    if seat is None:
        raise PermissionDenied("The signed-in person belongs to no tenant.")
    return seat.current


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolePage:
    """A page of the console that is no list of a table's rows.

    :ivar route: below ``/admin/``.
    :ivar name: the route's name in the namespace ``admin``, and the page's in the menu.
    :ivar roles: who may come here; the site checks it before the view runs.
    :ivar view: takes the request, what every page's template is given, and the route's arguments.
    """

    route: str
    name: str
    title: str
    roles: tuple[str, ...]
    view: Callable[..., HttpResponse]


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # no type arguments at run time
    """Counts and shows the first 5,000 rows at most, so that no page walks a whole history."""

    reach: ClassVar[int] = 5000
    template_name = "valdrix/pagination.html"

    @cached_property
    def count(self) -> int:
        """Return how many rows can be paged through."""
        rows = cast("QuerySet[Any]", self.object_list)
        return rows[: self.reach].count()

    @property
    def is_cut(self) -> bool:
        """Tell whether there may be more rows than are shown."""
        return self.count >= self.reach


class ConsoleChangeList(ChangeList):
    """A list whose order is fixed and whose query string can name its declared filters only.

    Django's own would let a URL compare any column, and sort a history without an index.
    """

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        # The theme's filter sheet needs a script and a mouse; valdrix/filters.html is a form.
        self.has_filters = False

    def get_filters_params(self, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the parameters that the list's filters read; others mean nothing."""
        found = super().get_filters_params(params)
        known = {one.parameter_name for one in self.list_filter}
        return {name: values for name, values in found.items() if name in known}

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str]:
        """Return the order that the list's index gives."""
        return list(self.model_admin.ordering)

    def url_for_result(self, result: Model) -> str:
        """Return the address of a row's own page."""
        return str(self.model_admin.url_of(result))


def column_filter(
    field_name: str,
    title_text: str,
    choices: Sequence[str] | Callable[[HttpRequest], Sequence[str]],
    *,
    label: Callable[[str], str] = str,
) -> type[SimpleListFilter]:
    """Return a filter that shows the rows whose column has a chosen value.

    A value that is not on offer shows all rows.

    :param choices: the values on offer, or what reads them, inside the tenant's transaction.
    """

    class ColumnFilter(SimpleListFilter):
        title = title_text
        parameter_name = field_name

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            offered = choices(request) if callable(choices) else choices
            return [(value, label(value)) for value in offered]

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            chosen = self.value()
            if chosen is None or chosen not in {value for value, _ in self.lookup_choices}:
                return queryset
            return queryset.filter(**{field_name: chosen})

    return ColumnFilter


def typed_filter(
    parameter: str,
    title_text: str,
    narrow: Callable[[HttpRequest, QuerySet[Any], str], QuerySet[Any]],
    *,
    input_type: str = "text",
) -> type[SimpleListFilter]:
    """Return a filter whose value is typed in, such as an id or a moment.

    :param narrow: returns the rows that a value means; none for one that cannot be read.
    :param input_type: the kind of field that the page offers.
    """

    class TypedFilter(SimpleListFilter):
        title = title_text
        parameter_name = parameter
        typed = input_type

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            return []

        def has_output(self) -> bool:
            return True

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            value = (self.value() or "").strip()
            if not value:
                return queryset
            return narrow(request, queryset, value) if value.isprintable() else queryset.none()

    return TypedFilter


class TenantModelAdmin(ModelAdmin):
    """Lists and pages of one tenant's rows, and the acts that they offer; nothing else changes.

    :cvar roles: who may look.
    :cvar list_acts: what can be done beside the rows, such as making a new one.
    :cvar row_acts: what can be done with one row.
    :cvar url_field: the attribute that names a row in its address.
    :cvar list_title: the list's heading, where the model's name does not serve.
    :cvar deferred: columns that lists do not read.
    """

    roles: ClassVar[tuple[str, ...]] = ()
    url_field: ClassVar[str] = "pk"
    deferred: ClassVar[tuple[str, ...]] = ()
    list_acts: ClassVar[tuple[Act, ...]] = ()
    row_acts: ClassVar[tuple[Act, ...]] = ()
    list_title: ClassVar[str] = ""
    empty_text: ClassVar[str] = "Nothing here yet."
    detail_template: ClassVar[str] = "valdrix/record.html"

    actions = None
    change_list_template = "valdrix/list.html"
    paginator = BoundedPaginator
    list_per_page = 50
    list_max_show_all = 0
    list_fullwidth = True
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    sortable_by = ()
    ordering: tuple[str, ...] = ("-pk",)
    view_on_site = False

    def get_urls(self) -> list[URLPattern]:
        """Return the list's and the page's routes and those of the acts: there are no others."""
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        admin_view = self.admin_site.admin_view
        routes = [
            path("", admin_view(self.changelist_view), name=f"{name}_changelist"),
            path("<str:object_id>/change/", admin_view(self.change_view), name=f"{name}_change"),
        ]
        for act in self.list_acts:
            view = admin_view(partial(self.act_view, act))
            routes.append(path(f"do/{act.name}/", view, name=f"{name}_{act.name}"))
        for act in self.row_acts:
            view = admin_view(partial(self.act_view, act))
            routes.append(path(f"<str:object_id>/do/{act.name}/", view, name=f"{name}_{act.name}"))
        return routes

    def act_view(
        self, act: Act, request: HttpRequest, object_id: str | None = None
    ) -> HttpResponse:
        """Answer an act's page; another tenant's row does not exist."""
        tenancy = seat_of(request)
        if not self.has_view_permission(request):
            raise PermissionDenied
        list_url = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        row, back_url, crumbs = None, list_url, [(list_url, self.get_list_title(request))]
        if object_id is not None:
            with reading(tenancy.tenant_id):
                row = self.get_object(request, object_id)
                if row is None:
                    raise Http404
                back_url = self.url_of(row)
                crumbs = [
                    (list_url, self.get_list_title(request, row)),
                    (back_url, self.get_page_title(row)),
                ]
        context = {
            **self.admin_site.each_context(request),
            "title": act.heading,
            "crumbs": [*crumbs, (None, act.heading)],
        }
        doing = doing_of(request, tenancy, row=row, context=context)
        return answer_act(act, doing, back_url=back_url)

    def act_links(self, request: HttpRequest, row: Any = None) -> list[dict[str, str]]:
        """Return the acts that the person's role may do, of the list or of a row."""
        role = seat_of(request).role
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        acts = self.list_acts if row is None else self.row_acts
        arguments = [] if row is None else [str(getattr(row, self.url_field))]
        return [
            {
                "label": act.label,
                "tone": act.tone,
                "url": reverse(f"{name}_{act.name}", args=arguments),
            }
            for act in acts
            if role in act.roles and (row is None or act.applies(row))
        ]

    def url_of(self, row: Model) -> str:
        """Return the address of a row's page."""
        return self.url_of_key(getattr(row, self.url_field))

    def url_of_key(self, key: object) -> str:
        """Return the address of the page of the row with this ``url_field``."""
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
        return reverse(name, args=[str(key)])

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: the console only shows."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: the console only shows."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: the console only shows."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Tell whether the person's role in the current tenant may look; flags mean nothing."""
        seat = find_seat(request)
        return seat is not None and seat.current.role in self.roles

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Tell whether the list is shown in the menu."""
        return self.has_view_permission(request)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleChangeList]:
        """Return the list's class."""
        return ConsoleChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the tenant's rows, by the application's own filter; the database has another."""
        rows = self.model._default_manager.filter(tenant_id=seat_of(request).tenant_id)
        return rows.order_by(*self.ordering)

    def get_list_queryset(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows as a list reads them."""
        return rows.defer(*self.deferred)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the rows that a search finds; lists that can be searched override ``search``."""
        rows = self.get_list_queryset(request, queryset)
        term = search_term.strip()
        return (self.search(request, rows, term) if term else rows), False

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Return the rows that a term means."""
        return rows

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """Return the row with this key, or None."""
        field = self.opts.pk if self.url_field == "pk" else self.opts.get_field(self.url_field)
        if not object_id.isascii() or not object_id.isprintable() or len(object_id) > 60:
            return None
        try:
            key = field.to_python(object_id)
        except (ValidationError, ValueError):
            return None
        return self.get_queryset(request).filter(**{self.url_field: key}).first()

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return what a row's page shows."""
        raise NotImplementedError

    def get_page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what the page's template is given."""
        panels = self.get_panels(request, row)
        in_columns = sum(1 for panel in panels if panel.document is None)
        return {"panels": panels, "width": _WIDTHS.get(in_columns, "third")}

    def get_list_title(self, request: HttpRequest, row: Any = None) -> str:
        """Return the heading of the list, or of the list that a row is in."""
        name = str(self.opts.verbose_name_plural)
        return self.list_title or name[:1].upper() + name[1:]

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a row's page."""
        return str(row)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Answer the list, rendered."""
        if request.method not in _READS:
            return HttpResponseNotAllowed(_READS)
        title = self.get_list_title(request)
        context = {
            "title": title,
            "crumbs": [(None, title)],
            "empty_text": self.empty_text,
            "acts": self.act_links(request),
            **(extra_context or {}),
        }
        with reading(seat_of(request).tenant_id):
            return _rendered(super().changelist_view(request, context))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Answer one row's page, rendered; another tenant's row does not exist."""
        if request.method not in _READS:
            return HttpResponseNotAllowed(_READS)
        tenancy = seat_of(request)
        if not self.has_view_permission(request):
            raise PermissionDenied
        with reading(tenancy.tenant_id):
            row = self.get_object(request, object_id)
            if row is None:
                raise Http404
            list_url = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
            title = self.get_page_title(row)
            context = {
                **self.admin_site.each_context(request),
                "title": title,
                "crumbs": [(list_url, self.get_list_title(request, row)), (None, title)],
                "acts": self.act_links(request, row),
                **self.get_page_context(request, row),
                **(extra_context or {}),
            }
            return _rendered(TemplateResponse(request, self.detail_template, context))


def _rendered(response: HttpResponse) -> HttpResponse:
    return response.render() if isinstance(response, TemplateResponse) else response
