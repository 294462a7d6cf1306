"""Permissions of ``/api/v1``: roles, scopes and the binding to projects, each with its code."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from governance.identity.domain import Principal
from valdrix.kernel.problems import NotAllowed


def require_role(principal: Principal, role: str) -> None:
    """Refuse a principal below a role.

    :raises NotAllowed: with the code ``role_missing``.
    """
    if not principal.has_role(role):
        raise NotAllowed(f"This needs the role {role}.", code="role_missing")


def require_scope(principal: Principal, scope: str) -> None:
    """Refuse a credential without a scope.

    :raises NotAllowed: with the code ``scope_missing``.
    """
    if scope not in principal.scopes:
        raise NotAllowed(f"This needs a credential with the scope {scope}.", code="scope_missing")


def require_project(principal: Principal, project_id: str) -> None:
    """Refuse a project that the credential is not bound to.

    :raises NotAllowed: with the code ``project_not_allowed``.
    """
    if not principal.can_use_project(project_id):
        raise NotAllowed("The credential is bound to other projects.", code="project_not_allowed")


def require_whole_tenant(principal: Principal) -> None:
    """Refuse a credential that is bound to projects, for what belongs to the tenant as a whole.

    :raises NotAllowed: with the code ``project_not_allowed``.
    """
    if principal.projects is not None:
        raise NotAllowed(
            "This concerns the whole tenant, and the credential is bound to projects.",
            code="project_not_allowed",
        )


class _Permission(BasePermission):
    """A permission that asks one of the functions above, which raise the coded refusal."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Tell whether there is a principal, and let :meth:`check` refuse it.

        :raises NotAllowed: when it may not.
        """
        principal = request.user
        if not isinstance(principal, Principal):
            return False  # The framework answers 401.
        self.check(principal, request)
        return True

    def check(self, principal: Principal, request: Request) -> None:
        """Refuse a principal that lacks what is needed."""
        raise NotImplementedError


def lets_in(view: Any, request: Request, principal: Principal) -> bool:
    """Tell whether all permissions of a view are such as ask a principal, and let this one in."""
    for permission in view.get_permissions():
        if not isinstance(permission, _Permission):
            return False
        try:
            permission.check(principal, request)
        except NotAllowed:
            return False
    return True


def RequireRole(role: str, *, to_write: str | None = None) -> type[BasePermission]:  # noqa: N802 - makes a class
    """Return the permission that asks for a role.

    :param to_write: the role for every method but GET, HEAD and OPTIONS, when it is another.
    """

    class RoleRequired(_Permission):
        def check(self, principal: Principal, request: Request) -> None:
            reads = request.method in {"GET", "HEAD", "OPTIONS"}
            require_role(principal, role if reads or to_write is None else to_write)

    return RoleRequired


def RequireScope(scope: str) -> type[BasePermission]:  # noqa: N802 - makes a class
    """Return the permission that asks for a scope."""

    class ScopeRequired(_Permission):
        def check(self, principal: Principal, request: Request) -> None:
            require_scope(principal, scope)

    return ScopeRequired


class RequireWholeTenant(_Permission):
    """Asks for a credential that is bound to no project."""

    def check(self, principal: Principal, request: Request) -> None:
        """Refuse a bound credential."""
        require_whole_tenant(principal)
