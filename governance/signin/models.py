"""Tables of guesses and of second factors. People belong to no tenant, and neither do these."""

from __future__ import annotations

from django.db import models

from governance.identity.models import User


class SignInSlot(models.Model):
    """Guesses in a row that failed, of whatever shares this slot."""

    key = models.IntegerField(primary_key=True)
    failures = models.PositiveSmallIntegerField()
    last_at = models.DateTimeField()
    locked_until = models.DateTimeField(null=True)

    class Meta:
        db_table = "governance_sign_in_slot"

    def __str__(self) -> str:
        return f"slot {self.key}"


class SecondFactor(models.Model):
    """A person's authenticator: the secret, sealed, and the newest step whose code was used."""

    person = models.OneToOneField(
        User, on_delete=models.PROTECT, primary_key=True, related_name="second_factor"
    )
    sealed_secret = models.BinaryField(max_length=200)
    enrolled_at = models.DateTimeField()
    last_step = models.BigIntegerField()

    class Meta:
        db_table = "governance_second_factor"

    def __str__(self) -> str:
        return f"second factor of person {self.person_id}"


class RecoveryCode(models.Model):
    """A code that replaces the authenticator once; only its digest is kept."""

    id = models.UUIDField(primary_key=True, editable=False)
    person = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    digest = models.BinaryField(max_length=32)
    used_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "governance_recovery_code"

    def __str__(self) -> str:
        return f"recovery code {self.id}"
