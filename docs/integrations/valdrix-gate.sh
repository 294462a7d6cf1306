#!/bin/sh
# Asks Valdrix whether a change may happen, prints a readable summary, and exits by the answer.
#
# Needs only a POSIX shell and curl. Configuration comes from the environment:
#   VALDRIX_URL           this server, such as https://valdrix.internal
#   VALDRIX_TOKEN         an API key, or a workload's OIDC token
#   VALDRIX_PROJECT       where the cost lands
#   VALDRIX_ENVIRONMENT   such as prod or staging; absent means prod
#   VALDRIX_REFERENCE     what is changed, such as a workspace or a directory
#   VALDRIX_RUN_ID        this run, the same in all of its stages and when it is started again
#   VALDRIX_STAGE         pre_plan, post_plan, pre_apply or post_apply; post_plan if absent
#   VALDRIX_MONTHLY_USD   what to spend of an approval of an unknown cost; optional
#   VALDRIX_SUMMARY       a file that the summary is appended to as Markdown; optional
# Arguments: the estimate (infracost diff --format json) and, optionally, the plan
# (terraform show -json). Without an estimate the cost is unknown, and policy says what that means.
#
# A change that needs approval ends with 2. Started again with the same run id after the approval, the
# script claims the approval's token and spends it: that opens this very change, once.
#
# Exit code: 0 go ahead; 1 denied; 2 needs approval; 3 no answer that can be used.
set -u

fail() { printf 'valdrix: %s\n' "$1" >&2; exit 3; }
# Not ${name:?}: what a shell exits with there is its own choice, such as 2, which is an answer here.
[ -n "${VALDRIX_URL:-}" ] || fail "VALDRIX_URL is not set"
[ -n "${VALDRIX_TOKEN:-}" ] || fail "VALDRIX_TOKEN is not set"
[ -n "${VALDRIX_PROJECT:-}" ] || fail "VALDRIX_PROJECT is not set"
[ -n "${VALDRIX_REFERENCE:-}" ] || fail "VALDRIX_REFERENCE is not set"
[ -n "${VALDRIX_RUN_ID:-}" ] || fail "VALDRIX_RUN_ID is not set"
estimate=${1:-} plan=${2:-}
[ -z "$estimate" ] || [ -r "$estimate" ] || fail "cannot read $estimate"
[ -z "$plan" ] || [ -r "$plan" ] || fail "cannot read $plan"

# A JSON string of any text: backslashes, quotes and control characters are escaped or left out.
quote() { printf '"%s"' "$(printf %s "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')"; }
# The value of one member at the top of the answer, which is one line of JSON.
member() { sed -n -E 's/^.*[{,]"'"$1"'":"(([^"\\]|\\.)*)".*$/\1/p' "$answer" | unescape; }
unescape() { sed -E 's/\\(["\\])/\1/g'; }
# Why the answer is what it is, a line for each reason.
reasons() {
  sed -n 's/^.*"explanation"://p' "$answer" | awk -F '"detail":"' '{
    for (i = 2; i <= NF; i++)
      if (match($i, /^([^"\\]|\\.)*/) && RLENGTH > 0) print "- " substr($i, 1, RLENGTH)
  }' | unescape
}

work=$(mktemp -d) || fail "cannot make a temporary directory"
trap 'rm -rf "$work"' EXIT INT TERM
answer=$work/answer body=$work/body headers=$work/headers
{
  printf '{"project_id":%s,' "$(quote "$VALDRIX_PROJECT")"
  printf '"environment":%s,' "$(quote "${VALDRIX_ENVIRONMENT:-}")"
  printf '"resource_reference":%s,' "$(quote "$VALDRIX_REFERENCE")"
  printf '"run_id":%s,' "$(quote "$VALDRIX_RUN_ID")"
  printf '"stage":%s' "$(quote "${VALDRIX_STAGE:-post_plan}")"
  if [ -n "$estimate" ]; then
    printf ',"cost_estimate":{"format":"infracost","document":'; cat "$estimate"; printf '}'
  fi
  if [ -n "$plan" ]; then printf ',"plan":'; cat "$plan"; fi
  printf '}'
} > "$body"
# In a file: arguments are shown to everybody on the machine.
(umask 077; printf 'Authorization: Bearer %s\n' "$VALDRIX_TOKEN" > "$headers")

# Sends the body to a path and keeps the answer; $status is its HTTP status.
ask() {
  status=$(curl --silent --show-error --max-time 60 --retry 3 --retry-delay 2 \
    --header "@$headers" --header 'Content-Type: application/json' --data-binary "@$body" \
    --output "$answer" --write-out '%{http_code}' \
    "${VALDRIX_URL%/}/api/v1/enforcement/$1") || fail "no answer from $VALDRIX_URL"
}
refusal() {
  code=$(member code) where=$(member pointer)
  [ -n "$code" ] || { echo "$status, and what came with it is no answer of Valdrix"; return; }
  printf '%s\n' "$status $code${where:+ at $where}: $(member detail)"
}

ask gate/terraform/preflight
[ "$status" = 200 ] || fail "$(refusal)"

decision=$(member decision) delta=$(member estimated_monthly_delta_usd)
approval=$(member approval_request_id) summary=$(member summary)
[ -n "$decision" ] || fail "the answer cannot be read"
project=$(member project_id) environment=$(member environment) cost_state=$(member cost_state)
why=$(reasons) mode=$(member mode) decision_id=$(member decision_id) fingerprint=$(member request_fingerprint)

# Spends an approval that was given meanwhile; says nothing while people have not decided.
spend() {
  printf '{}' > "$body"
  ask "approvals/$approval/token"
  case "$status $(member code)" in
    200*) ;;
    *approval_pending) return ;;
    *approval_denied) decision=DENY summary="Denied by a reviewer."; return ;;
    *) echo "valdrix: $(refusal)" >&2; return ;;
  esac
  amount=${delta:-${VALDRIX_MONTHLY_USD:-}}
  [ -n "$amount" ] || { echo "valdrix: approved; VALDRIX_MONTHLY_USD has to say what of it" >&2; return; }
  printf '{"approval_token":"%s","monthly_delta_usd":%s,"expected_request_fingerprint":"%s"}' \
    "$(member approval_token)" "$(quote "$amount")" "$fingerprint" > "$body"
  ask approvals/consume
  [ "$status" = 200 ] || { echo "valdrix: $(refusal)" >&2; return; }
  decision=APPROVED summary="Approved by a reviewer, and the approval is spent."
}
if [ "$decision" = REQUIRE_APPROVAL ] && [ -n "$approval" ]; then spend; fi

{
  echo "### Valdrix: $decision"
  echo
  printf '%s\n' "$summary"
  echo
  [ -z "$why" ] || printf '%s\n\n' "$why"
  echo "| | |"
  echo "| --- | --- |"
  echo "| project | $project, $environment |"
  echo "| monthly delta | ${delta:-unknown} USD ($cost_state) |"
  echo "| mode | $mode |"
  echo "| decision | $decision_id |"
  [ -z "$approval" ] || echo "| approval | $approval |"
} > "$work/summary"
cat "$work/summary"
[ -z "${VALDRIX_SUMMARY:-}" ] || cat "$work/summary" >> "$VALDRIX_SUMMARY"

case $decision in
  ALLOW | ALLOW_WITH_CREDITS | APPROVED) exit 0 ;;
  REQUIRE_APPROVAL) exit 2 ;;
  *) exit 1 ;;
esac
