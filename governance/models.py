"""The app's tables, one room each."""

from governance.approvals.models import Approval, Review
from governance.audit.models import AuditEntry
from governance.identity.models import (
    ApiKey,
    ApprovalPermission,
    Membership,
    ReviewerGroup,
    ReviewerGroupMember,
    User,
)
from governance.incidents.models import Incident
from governance.integrations.models import ClusterBinding, Integration
from governance.policies.models import ForcedMode, PolicyVersion
from governance.signin.models import RecoveryCode, SecondFactor, SignInSlot
from governance.tenants.models import Tenant
from governance.tokens.models import ApprovalToken, TokenKey
from governance.workloads.models import WorkloadIssuer

__all__ = (
    "ApiKey",
    "Approval",
    "ApprovalPermission",
    "ApprovalToken",
    "AuditEntry",
    "ClusterBinding",
    "ForcedMode",
    "Incident",
    "Integration",
    "Membership",
    "PolicyVersion",
    "RecoveryCode",
    "Review",
    "ReviewerGroup",
    "ReviewerGroupMember",
    "SecondFactor",
    "SignInSlot",
    "Tenant",
    "TokenKey",
    "User",
    "WorkloadIssuer",
)
