"""The table of calls that run tasks made."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

RECEIVED = "received"
DECIDED = "decided"
REPORTED = "reported"
GIVEN_UP = "given_up"
STATES = (RECEIVED, DECIDED, REPORTED, GIVEN_UP)


class RunTask(models.Model):
    """One call of a run task.

    ::

        received ──> decided ──> reported
            └───────────┴──────> given_up

    :ivar decision_id: the id that its decision has, if it came to one.
    :ivar due_at: when the job may take it (again); taking it moves this on, as a lease.
    :ivar sealed_token: the platform's token, bound to this row; NULL at the end.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    integration_id = models.UUIDField()
    task_result_id = models.CharField(max_length=170)
    run_id = models.CharField(max_length=170)
    stage = models.CharField(max_length=20)
    call_json = models.TextField(help_text="The call as it was read, without its token.")
    person_id = models.BigIntegerField()
    sealed_token = models.BinaryField(null=True)
    state = models.CharField(max_length=10, default=RECEIVED)
    decision_id = models.UUIDField()
    plan_digest = models.CharField(max_length=64, null=True)
    verdict_json = models.TextField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=200, null=True)
    received_at = models.DateTimeField()
    due_at = models.DateTimeField()
    told_at = models.DateTimeField(null=True, help_text="When the platform last heard of it.")
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "enforcement_run_task"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant_id", "integration_id", "task_result_id"],
                name="enforcement_run_task_once",
            ),
            models.CheckConstraint(
                condition=Q(state__in=STATES), name="enforcement_run_task_state_is_known"
            ),
            models.CheckConstraint(
                condition=~Q(state__in=(REPORTED, GIVEN_UP)) | Q(sealed_token__isnull=True),
                name="enforcement_run_task_token_forgotten",
            ),
        )
        indexes = (
            models.Index(
                fields=["tenant_id", "due_at"],
                condition=Q(state__in=(RECEIVED, DECIDED)),
                name="enforcement_run_task_due",
            ),
            models.Index(fields=["tenant_id", "run_id"], name="enforcement_run_task_run"),
        )

    def __str__(self) -> str:
        return f"{self.task_result_id} ({self.stage}, {self.state})"
