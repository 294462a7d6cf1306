"""Infracost JSON: how a cost document becomes a delta and a cost state (SPEC 3.1, 8).

The delta is the exact sum of every project's own diff; the totals at the root only check it.
What the document cannot say is never zero: a project that failed, a directory's breakdown whose
past is its present, another currency. docs/cost-estimates.md has the rules as a table.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec

from enforcement.adapters.foreign import ForeignReader
from enforcement.gate.inputs import COST_STATE_REASONS, KNOWN, PARTIAL, UNKNOWN, Cost
from valdrix.kernel.money import (
    HOURLY_PLACES,
    MAGNITUDE_LIMIT,
    MONTHLY_PLACES,
    AmountError,
    deltas_agree,
    hourly_from_monthly,
    round_amount,
)
from valdrix.kernel.problems import InvalidRequest, escape_pointer

CURRENCY: Final = "USD"

_VERSION: Final = re.compile(r"0\.[0-9]{1,4}(?:\.[0-9]{1,4})?", re.ASCII)
_PLAIN_DECIMAL: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_MAX_DIGITS: Final = 1000
_WIDE: Final = decimal.Context(
    prec=_MAX_DIGITS + 100, traps=[decimal.InvalidOperation, decimal.Inexact, decimal.Overflow]
)
"""Holds the sum of millions of amounts of ``_MAX_DIGITS`` digits; losing one is an exception."""

_QUOTA_CODE: Final = 401
_QUOTA_MESSAGE: Final = re.compile(r"quota|run limit|limit exceeded", re.IGNORECASE)
_MONTHLY_ROUNDING: Final = Decimal("0.0001")
_HOURLY_ROUNDING: Final = Decimal("0.000001")
_ZERO: Final = Decimal(0)
_BREAKDOWNS: Final = ("pastBreakdown", "breakdown", "diff")


class _Totals(msgspec.Struct, frozen=True):
    """The totals of one breakdown; None where the document has null or nothing."""

    monthly: Decimal | None = None
    hourly: Decimal | None = None


class _Project(msgspec.Struct, frozen=True, kw_only=True):
    """What one project of the document says.

    :ivar failure: the reason why its cost cannot be trusted, when it reports an error.
    :ivar past: None where the document has no past breakdown at all.
    """

    is_plan: bool
    failure: str | None
    past: _Totals | None
    present: _Totals
    diff: _Totals


class _Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A whole document, read and typed."""

    currency: str | None
    command: str | None
    projects: tuple[_Project, ...]
    root_past: Decimal | None
    root_present: Decimal | None
    root_diff: _Totals
    gaps: frozenset[str]


def read_cost(document: object, *, pointer: str) -> Cost:
    """Return the deltas and the cost state that an Infracost document names.

    :param document: the parsed JSON document, of any type.
    :param pointer: JSON pointer of the document inside the request.
    :raises InvalidRequest: when it is no Infracost document, a member that is read has another
        type, or an amount is above 1e12 in magnitude; with pointers below ``pointer``.
    """
    reader = ForeignReader(
        refusal=InvalidRequest, detail="The cost document is not a valid Infracost document."
    )
    root = reader.as_object(document, pointer)
    estimate = None if root is None else _read_estimate(reader, root, pointer)
    reader.finish()
    assert estimate is not None
    try:
        return _cost_of(estimate)
    except AmountError as error:
        reader.refuse(f"{pointer}/projects", f"add up to an amount that {error}", code=error.code)
        reader.finish()
        raise


# --- what the document says ---------------------------------------------------------------------


def _read_estimate(reader: ForeignReader, root: dict[str, Any], pointer: str) -> _Estimate:
    version = reader.text(root, "version", pointer, required=True)
    if version is not None and not _VERSION.fullmatch(version):
        reader.refuse(f"{pointer}/version", "must be a version 0.x of the Infracost JSON format")
    if "projects" not in root:
        reader.refuse(f"{pointer}/projects", "is required", code="required")
    metadata = reader.object(root, "metadata", pointer) or {}
    projects = []
    gaps = _summary_gaps(reader, root, pointer)
    for place, item in reader.objects(root, "projects", pointer):
        projects.append(_read_project(reader, item, place))
        gaps |= _summary_gaps(reader, item, place)
        if _has_missing_price(reader, item, place):
            gaps.add("price_not_found")
    return _Estimate(
        currency=reader.text(root, "currency", pointer),
        command=reader.text(metadata, "infracostCommand", f"{pointer}/metadata"),
        projects=tuple(projects),
        root_past=_amount(reader, root, "pastTotalMonthlyCost", pointer),
        root_present=_amount(reader, root, "totalMonthlyCost", pointer),
        root_diff=_Totals(
            _amount(reader, root, "diffTotalMonthlyCost", pointer),
            _amount(reader, root, "diffTotalHourlyCost", pointer),
        ),
        gaps=frozenset(gaps),
    )


def _read_project(reader: ForeignReader, item: dict[str, Any], pointer: str) -> _Project:
    metadata = reader.object(item, "metadata", pointer) or {}
    kind = reader.text(metadata, "type", f"{pointer}/metadata")
    return _Project(
        is_plan=kind == "terraform_plan_json",
        failure=_failure(reader, metadata, kind, f"{pointer}/metadata"),
        past=_totals(reader, item, "pastBreakdown", pointer),
        present=_totals(reader, item, "breakdown", pointer) or _Totals(),
        diff=_totals(reader, item, "diff", pointer) or _Totals(),
    )


def _failure(
    reader: ForeignReader, metadata: dict[str, Any], kind: str | None, pointer: str
) -> str | None:
    """Return why a project's cost cannot be trusted, or None.

    Older outputs have no ``isError``: whatever they list among the errors is one. Warnings, such
    as variables without a value, are listed elsewhere and are no failure.
    """
    failure = "estimate_error" if kind == "error" else None
    for name in ("errors", "currentErrors", "pastErrors"):
        for _, error in reader.objects(metadata, name, pointer):
            if error.get("isError") is False and error.get("type") != "error":
                continue
            message = error.get("message")
            if error.get("code") == _QUOTA_CODE or (
                isinstance(message, str) and _QUOTA_MESSAGE.search(message)
            ):
                return "estimator_quota_exceeded"
            failure = "estimate_error"
    return failure


def _totals(reader: ForeignReader, item: dict[str, Any], name: str, pointer: str) -> _Totals | None:
    breakdown = reader.object(item, name, pointer)
    if breakdown is None:
        return None
    here = f"{pointer}/{name}"
    return _Totals(
        _amount(reader, breakdown, "totalMonthlyCost", here),
        _amount(reader, breakdown, "totalHourlyCost", here),
    )


def _amount(
    reader: ForeignReader, parent: dict[str, Any], name: str, pointer: str
) -> Decimal | None:
    """Return an exact amount of any number of digits, or None for null."""
    value = parent.get(name)
    if value is None:
        return None
    here = f"{pointer}/{name}"
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        reader.refuse(here, "must be a decimal string or null", code="invalid_type")
        return None
    if isinstance(value, str) and (len(value) > _MAX_DIGITS or not _PLAIN_DECIMAL.fullmatch(value)):
        reader.refuse(
            here, f"must be a plain decimal of at most {_MAX_DIGITS} digits", code="invalid_amount"
        )
        return None
    number = Decimal(value)
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or (number and exponent < -_MAX_DIGITS):
        reader.refuse(here, "must be a plain decimal", code="invalid_amount")
        return None
    if number and (
        number.adjusted() > MAGNITUDE_LIMIT.adjusted() or number.copy_abs() > MAGNITUDE_LIMIT
    ):
        reader.refuse(here, "must not be above 1000000000000 in magnitude", code="invalid_amount")
        return None
    return number or _ZERO


def _summary_gaps(reader: ForeignReader, parent: dict[str, Any], pointer: str) -> set[str]:
    """Return which resources a summary counts without their cost: totals, else per type."""
    summary = reader.object(parent, "summary", pointer) or {}
    here = f"{pointer}/summary"
    gaps = set()
    for reason, total, counts in (
        ("unsupported_resources", "totalUnsupportedResources", "unsupportedResourceCounts"),
        ("price_not_found", "totalNoPriceResources", "noPriceResourceCounts"),
    ):
        by_type = reader.object(summary, counts, here) or {}
        found = reader.count(summary, total, here)
        for kind in by_type:
            if isinstance(by_type[kind], bool) or not isinstance(by_type[kind], int):
                reader.refuse(
                    f"{here}/{counts}/{escape_pointer(kind)}",
                    "must be a whole number",
                    code="invalid_type",
                )
            else:
                found += abs(by_type[kind])
        if found:
            gaps.add(reason)
    return gaps


def _has_missing_price(reader: ForeignReader, project: dict[str, Any], pointer: str) -> bool:
    """Tell whether any component of any resource has no price.

    A diff does not carry the mark of its components, so the breakdowns are looked at as well.
    """
    pending = []
    for name in _BREAKDOWNS:
        breakdown = project.get(name)
        if isinstance(breakdown, dict):
            pending += reader.objects(breakdown, "resources", f"{pointer}/{name}")
    found = False
    while pending:
        here, resource = pending.pop()
        for place, component in reader.objects(resource, "costComponents", here):
            found = bool(reader.flag(component, "priceNotFound", place)) or found
        pending += reader.objects(resource, "subresources", here)
    return found


# --- what it means ------------------------------------------------------------------------------


def _cost_of(estimate: _Estimate) -> Cost:
    projects = estimate.projects
    has_real_zeros = _has_real_zeros(estimate)
    has_other_total = _differs(estimate.root_present, _sum(p.present.monthly for p in projects))
    faults = [
        _fault(
            project,
            is_breakdown=estimate.command == "breakdown",
            is_zero_real=project.is_plan or (has_real_zeros and not has_other_total),
            has_other_total=has_other_total,
        )
        for project in projects
    ]
    reasons = set(estimate.gaps).union(fault for fault in faults if fault is not None)
    if estimate.currency != CURRENCY:
        reasons.add("currency_mismatch")
    if not projects:
        reasons.add("no_estimate")
    if has_other_total or _has_wrong_root(estimate):
        reasons.add("estimate_error")
    ordered = tuple(reason for reason in COST_STATE_REASONS if reason in reasons)
    monthly, hourly = _deltas(estimate)
    is_unpriced = any(faults) and not any(
        fault is None and (project.is_plan or has_real_zeros or project.diff.monthly)
        for project, fault in zip(projects, faults, strict=True)
    )
    if is_unpriced or not projects or estimate.currency != CURRENCY:
        return Cost(monthly_delta_usd=None, hourly_delta_usd=None, state=UNKNOWN, reasons=ordered)
    return Cost(
        monthly_delta_usd=monthly,
        hourly_delta_usd=hourly,
        state=PARTIAL if ordered else KNOWN,
        reasons=ordered,
    )


def _has_real_zeros(estimate: _Estimate) -> bool:
    """Tell whether a directory's zero diff means that nothing changes.

    A breakdown takes a directory's present for its past. A ``diff`` run has both; a document
    that was combined from others (``output``), or is too old to name its command, is believed
    when at least one of its directories did change.
    """
    if estimate.command in ("diff", "breakdown"):
        return estimate.command == "diff"
    return any(item.diff.monthly for item in estimate.projects if not item.is_plan)


def _fault(
    project: _Project, *, is_breakdown: bool, is_zero_real: bool, has_other_total: bool
) -> str | None:
    """Return why a project's diff does not say what its change costs, or None."""
    diff = project.diff.monthly
    if project.failure is not None:
        return project.failure
    if diff is None or (is_breakdown and not project.is_plan and project.past is None):
        return "diff_unavailable"
    if diff or is_zero_real or (project.present.monthly == _ZERO and not has_other_total):
        return None
    return "diff_unavailable"


def _has_wrong_root(estimate: _Estimate) -> bool:
    """Tell whether a past or a diff at the root is not the sum of the projects' own."""
    projects = estimate.projects
    diff = estimate.root_diff
    return (
        _differs(estimate.root_past, _sum(p.past.monthly for p in projects if p.past is not None))
        or _differs(diff.monthly, _sum(p.diff.monthly for p in projects))
        or _differs(diff.hourly, _sum(p.diff.hourly for p in projects), by=_HOURLY_ROUNDING)
    )


def _deltas(estimate: _Estimate) -> tuple[Decimal, Decimal]:
    """Return the monthly and the hourly delta, each summed exactly and rounded once.

    A saving of a project that failed is not believed, and of two totals the higher one counts:
    the delta is never understated. The month decides; the hour follows from it where the two do
    not name the same cost.

    :raises AmountError: when the sum is above 1e12 in magnitude.
    """
    counted = [
        project.diff
        for project in estimate.projects
        if project.failure is None or (project.diff.monthly or _ZERO) > 0
    ]
    exact = _sum(diff.monthly for diff in counted)
    root = estimate.root_diff.monthly
    if root is not None and root > exact and _differs(root, exact):
        exact = root
    monthly = round_amount(exact, places=MONTHLY_PLACES)
    hourly = round_amount(_sum(diff.hourly for diff in counted), places=HOURLY_PLACES)
    if not deltas_agree(monthly=monthly, hourly=hourly):
        hourly = hourly_from_monthly(monthly)
    return monthly, hourly


def _sum(amounts: Iterable[Decimal | None]) -> Decimal:
    total = _ZERO
    for amount in amounts:
        if amount is not None:
            total = _WIDE.add(total, amount)
    return total


def _differs(total: Decimal | None, other: Decimal, *, by: Decimal = _MONTHLY_ROUNDING) -> bool:
    """Tell whether a total, where there is one, is off another by more than rounding."""
    return total is not None and _WIDE.subtract(total, other).copy_abs() >= by
