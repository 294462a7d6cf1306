"""The webhook to copy is one that an API server takes, and asks about every kind that has a price."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import yaml

from enforcement.adapters.admission_review import read_review
from governance.policies.domain import DEFAULT_PRICED_KINDS

PAGE = (Path(__file__).resolve().parents[3] / "docs/integrations/kubernetes.md").read_text()
RESOURCES = {
    "Deployment": ("apps", "deployments"),
    "StatefulSet": ("apps", "statefulsets"),
    "DaemonSet": ("apps", "daemonsets"),
    "Job": ("batch", "jobs"),
    "CronJob": ("batch", "cronjobs"),
    "Pod": ("", "pods"),
    "PersistentVolumeClaim": ("", "persistentvolumeclaims"),
    "Service": ("", "services"),
}


def webhook() -> dict[str, Any]:
    documents = [
        yaml.safe_load(block)
        for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    ]
    (found,) = (one for one in documents if one["kind"] == "ValidatingWebhookConfiguration")
    assert found["apiVersion"] == "admissionregistration.k8s.io/v1"
    (only,) = found["webhooks"]
    return dict(only)


def test_an_api_server_takes_the_webhook() -> None:
    one = webhook()
    assert len(one["name"].split(".")) >= 3, "a fully qualified name"
    assert "v1" in one["admissionReviewVersions"]
    assert one["sideEffects"] in {"None", "NoneOnDryRun"}, "others are not called in a dry run"
    assert 1 <= one["timeoutSeconds"] <= 5
    assert one["failurePolicy"] in {"Ignore", "Fail"}
    assert one["matchPolicy"] == "Equivalent"
    address = urlsplit(one["clientConfig"]["url"])
    assert address.scheme == "https"
    assert (address.query, address.fragment, address.username) == ("", "", None)
    for term in one["namespaceSelector"]["matchExpressions"]:
        assert term["operator"] in {"In", "NotIn"}
        assert {"kube-system", "valdrix-system"} <= set(term["values"])
    assert set(one) <= {
        "name", "admissionReviewVersions", "sideEffects", "timeoutSeconds", "failurePolicy",
        "matchPolicy", "clientConfig", "namespaceSelector", "objectSelector", "rules",
        "matchConditions",
    }  # fmt: skip


@pytest.mark.parametrize("kind", DEFAULT_PRICED_KINDS)
def test_every_priced_kind_is_asked_about(kind: str) -> None:
    group, resource = RESOURCES[kind]
    rules = [rule for rule in webhook()["rules"] if resource in rule["resources"]]
    (rule,) = rules
    assert (rule["apiGroups"], rule["apiVersions"]) == ([group], ["v1"])
    assert set(rule["operations"]) == {"CREATE", "UPDATE", "DELETE"}
    assert rule["scope"] == "Namespaced"


def test_the_review_to_try_is_one() -> None:
    (text,) = re.findall(r" -d '(\{\n  \"apiVersion\".*?)'\n", PAGE, re.DOTALL)
    assert read_review(orjson.loads(text)).uid == "705ab4f5-6393-11e8-b7cc-42010a800002"
