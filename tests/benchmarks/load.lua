-- What wrk sends, and what it says afterwards: one line of JSON behind the word RESULT.
-- The environment says what: BENCH_KEYS (file, an API key a line: one is taken at random for each
-- request), BENCH_BODY (file; @N@ becomes a number that no other request has), BENCH_PREFIX (in
-- front of that number), BENCH_KEYED (whether the number is the idempotency key's, too), BENCH_DELAY_MS
-- (mean of the exponential pause before each request).
local keys, body, method, path = {}, nil, os.getenv("BENCH_METHOD"), os.getenv("BENCH_PATH")
local prefix, mean = os.getenv("BENCH_PREFIX"), tonumber(os.getenv("BENCH_DELAY_MS") or "0")
local sent, head, tail = 0, nil, nil

for line in io.lines(os.getenv("BENCH_KEYS")) do keys[#keys + 1] = line end
if os.getenv("BENCH_BODY") then
  local file = io.open(os.getenv("BENCH_BODY"))
  body = file:read("*a")
  file:close()
end

function init(args)
  math.randomseed(os.time())
end

function request()
  sent = sent + 1
  local headers = {
    ["Authorization"] = "Bearer " .. keys[math.random(#keys)],
    ["Content-Type"] = "application/json",
  }
  if not body then return wrk.format(method, path, headers) end
  local number = prefix .. sent
  if os.getenv("BENCH_KEYED") == "yes" then headers["Idempotency-Key"] = "bench-" .. number end
  return wrk.format(method, path, headers, (body:gsub("@N@", number)))
end

if mean > 0 then
  function delay()
    return math.floor(-mean * math.log(1 - math.random()) + 0.5)
  end
end

-- Each latency that occurred, in microseconds, and how often.
local function all(latency)
  local found = {}
  for number = 1, #latency do
    found[number] = string.format("[%d,%d]", latency(number))
  end
  return table.concat(found, ",")
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f, '
    .. '"bad_status": %d, "broken": %d, "latencies_us": [%s]}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    all(latency)))
end
