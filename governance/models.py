"""The app's tables, one room each."""

from governance.approvals.models import Approval
from governance.audit.models import AuditEntry
from governance.identity.models import ApiKey, Membership, User
from governance.incidents.models import Incident
from governance.integrations.models import Integration
from governance.policies.models import ForcedMode, PolicyVersion
from governance.signin.models import RecoveryCode, SecondFactor, SignInSlot
from governance.tenants.models import Tenant

__all__ = (
    "ApiKey",
    "Approval",
    "AuditEntry",
    "ForcedMode",
    "Incident",
    "Integration",
    "Membership",
    "PolicyVersion",
    "RecoveryCode",
    "SecondFactor",
    "SignInSlot",
    "Tenant",
    "User",
)
