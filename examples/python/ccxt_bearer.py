#!/usr/bin/env python3
"""ccxt with tokens from the agent instead of a key: derikey exec NAME -- ccxt_bearer.py"""
import json, os, socket, time

import ccxt


class Deribit(ccxt.deribit):
    """ccxt.deribit, logged in by the agent. It has no apiKey and no secret, and asks for none."""

    def __init__(self, config=None, scope=None):
        super().__init__(config or {})
        self.requiredCredentials = dict.fromkeys(self.requiredCredentials, False)
        self.agent_request = {"op": "token", "key": os.environ["DERIKEY_KEY"], **({"scope": scope} if scope else {})}
        self.agent_token, self.agent_renew = None, 0
        network, endpoint = os.environ["DERIBIT_NETWORK"], os.environ.get("DERIBIT_ENDPOINT")
        if endpoint:
            self.urls["api"] = {"rest": endpoint.removesuffix("/api/v2")}
        elif network == "test":
            self.set_sandbox_mode(True)  # what ccxt calls test.deribit.com
        elif network != "prod":
            raise ValueError(f"ccxt cannot reach the network {network}")

    def bearer(self):
        """Asks the agent, which shares one login among all who ask, when the last token runs out."""
        if time.monotonic() >= self.agent_renew:
            with socket.socket(socket.AF_UNIX) as agent:
                agent.settimeout(60)
                agent.connect(os.environ["DERIKEY_AGENT_SOCK"])
                agent.sendall(json.dumps(self.agent_request).encode() + b"\n")
                answer = json.loads(agent.makefile("rb").readline() or '{"ok":false,"error":"no answer"}')
            if not answer["ok"]:
                raise ccxt.AuthenticationError(f"the agent gave no token: {answer['error']}")
            self.agent_token = answer["result"]["access_token"]
            self.agent_renew = time.monotonic() + answer["result"]["expires_in"] - 30
        return "Bearer " + self.agent_token

    def sign(self, path, api="public", method="GET", params={}, headers=None, body=None, *rest):
        # ccxt signs each private request with the secret; here a token goes in its place.
        if "private" not in api:
            return super().sign(path, api, method, params)
        url = f"{self.urls['api']['rest']}/api/v2/private/{path}"
        url += "?" + self.urlencode(params) if params else ""
        return {"url": url, "method": method, "body": None, "headers": {"Authorization": self.bearer()}}


if __name__ == "__main__":
    exchange = Deribit(scope="account:read")
    # Any other method of ccxt works likewise: exchange.fetch_balance(), exchange.create_order(...)
    print("ccxt", exchange.private_get_get_account_summary({"currency": "BTC"})["result"]["currency"])
