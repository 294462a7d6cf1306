import time
from tests.crash.test_cut_connections import *
def test_stall(open_shop, proxy):
    shop = open_shop("hard")
    proxy.arm(Cut(INSERT_LEDGER, DELAYED, delay_seconds=6))
    t=time.monotonic(); a=shop.ask("10.00", key="cut"); print("STALL", round(time.monotonic()-t,2), a["decision"], a["reason_codes"], a["persisted"])
def test_stall_answer(open_shop, proxy):
    shop = open_shop("hard")
    proxy.arm(Cut(COMMIT, DELAYED, delay_seconds=6))
    t=time.monotonic(); a=shop.ask("10.00", key="cut"); print("STALLC", round(time.monotonic()-t,2), a["decision"], a["reason_codes"], a["persisted"])
