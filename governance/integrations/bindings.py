"""Writes of namespace bindings, each with its audit entry and in a transaction of its own."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import IntegrityError

from governance.audit.operations import Actor, record_change
from governance.integrations.domain import CLUSTER, BindingTerms
from governance.integrations.models import ClusterBinding, Integration
from governance.integrations.queries import find_active_integration, find_binding
from valdrix.kernel.db import savepoint, transaction
from valdrix.kernel.problems import FieldError, InvalidRequest, NotFound, Refused


class BindingExists(Refused):
    """The namespace of this cluster is bound already (409)."""

    code = "binding_exists"


def bind_namespace(
    *,
    actor: Actor,
    binding_id: uuid.UUID,
    integration_id: uuid.UUID,
    namespace: str,
    terms: BindingTerms,
) -> ClusterBinding:
    """Say where a cluster's namespace belongs; ``*`` means every one that is not bound itself.

    :raises NotFound: when the tenant has no such cluster in use.
    :raises BindingExists: when the namespace is bound.
    :raises InvalidRequest: when the cluster as a whole belongs to another project.
    """
    with transaction(actor.tenant_id):
        cluster = _get_cluster(actor.tenant_id, integration_id)
        _check_project(cluster, terms)
        try:
            with savepoint():
                binding = ClusterBinding.objects.create(
                    id=binding_id,
                    tenant_id=actor.tenant_id,
                    integration=cluster,
                    namespace=namespace,
                    project_id=terms.project_id,
                    environment=terms.environment,
                    created_by=actor.principal_id,
                    created_at=actor.at,
                )
        except IntegrityError as error:
            raise BindingExists("The namespace is bound already.") from error
        _audit(actor, "cluster_binding.create", binding, before=None)
    return binding


def rebind_namespace(
    *, actor: Actor, integration_id: uuid.UUID, binding_id: uuid.UUID, terms: BindingTerms
) -> ClusterBinding:
    """Say anew where a bound namespace belongs.

    :raises NotFound: when the cluster has no such binding, or is not in use.
    :raises InvalidRequest: when the cluster as a whole belongs to another project.
    """
    with transaction(actor.tenant_id):
        cluster = _get_cluster(actor.tenant_id, integration_id)
        _check_project(cluster, terms)
        binding = _get_binding(actor.tenant_id, integration_id, binding_id)
        before = shown(binding)
        binding.project_id, binding.environment = terms.project_id, terms.environment
        binding.save(update_fields=["project_id", "environment"])
        _audit(actor, "cluster_binding.change", binding, before=before)
    return binding


def unbind_namespace(*, actor: Actor, integration_id: uuid.UUID, binding_id: uuid.UUID) -> None:
    """Forget where a namespace belongs.

    :raises NotFound: when the cluster has no such binding.
    """
    with transaction(actor.tenant_id):
        binding = _get_binding(actor.tenant_id, integration_id, binding_id)
        _audit(actor, "cluster_binding.delete", binding, before=shown(binding), is_gone=True)
        binding.delete()


def shown(binding: ClusterBinding) -> dict[str, Any]:
    """Return what may be shown of a binding in the audit log."""
    return {
        "integration_id": str(binding.integration_id),
        "namespace": binding.namespace,
        "project_id": binding.project_id,
        "environment": binding.environment,
    }


def _get_cluster(tenant_id: uuid.UUID, integration_id: uuid.UUID) -> Integration:
    cluster = find_active_integration(tenant_id, integration_id)
    if cluster is None or cluster.kind != CLUSTER:
        raise NotFound
    return cluster


def _get_binding(
    tenant_id: uuid.UUID, integration_id: uuid.UUID, binding_id: uuid.UUID
) -> ClusterBinding:
    binding = find_binding(tenant_id, integration_id, binding_id)
    if binding is None:
        raise NotFound
    return binding


def _check_project(cluster: Integration, terms: BindingTerms) -> None:
    if cluster.project_id not in (None, terms.project_id):
        fault = FieldError(
            "/project_id", "contradiction", f"the whole cluster belongs to {cluster.project_id}"
        )
        raise InvalidRequest("The binding is not valid.", errors=(fault,))


def _audit(
    actor: Actor,
    action: str,
    binding: ClusterBinding,
    *,
    before: dict[str, Any] | None,
    is_gone: bool = False,
) -> None:
    record_change(
        actor=actor,
        action=action,
        subject=("cluster_binding", str(binding.pk)),
        before=before,
        after=None if is_gone else shown(binding),
    )
