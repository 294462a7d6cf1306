"""The public keys of approval tokens: what anybody needs to verify one offline."""

from __future__ import annotations

from typing import Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from governance.api.documents import closed_object
from governance.tokens.keys import build_key_set
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import refuse_unknown_query

MAX_AGE_SECONDS: Final = 300
_TEXT: Final = {"type": "string"}
_KEY_SET: Final = closed_object(
    {
        "keys": {
            "type": "array",
            "items": closed_object(dict.fromkeys(("kty", "crv", "x", "kid", "use", "alg"), _TEXT)),
        }
    }
)


class KeySetView(ApiView):
    """``GET /.well-known/jwks.json``: keys that are not retired, the one that is next included."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(operation_id="get_token_keys", tags=["approvals"], responses={200: _KEY_SET})
    def get(self, request: Request) -> Response:
        """Answer the key set (RFC 7517); it may be kept for five minutes."""
        refuse_unknown_query(request)
        headers = {"Cache-Control": f"public, max-age={MAX_AGE_SECONDS}"}
        return Response(build_key_set(timezone.now()), headers=headers)
