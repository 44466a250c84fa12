#!/usr/bin/env python3
"""Logs in with a key that this program never sees: derikey exec NAME -- agent_client.py"""
import http.client, json, os, socket, urllib.parse

ADDRESSES = {"test": "https://test.deribit.com/api/v2", "prod": "https://www.deribit.com/api/v2"}
KEY = os.environ["DERIKEY_KEY"]
ADDRESS = urllib.parse.urlsplit(os.environ.get("DERIBIT_ENDPOINT") or ADDRESSES[os.environ["DERIBIT_NETWORK"]])
CONNECTION = {"https": http.client.HTTPSConnection, "http": http.client.HTTPConnection}[ADDRESS.scheme]
agent = socket.socket(socket.AF_UNIX)
agent.settimeout(60)  # for a token it may have to ask the exchange first
agent.connect(os.environ["DERIKEY_AGENT_SOCK"])
lines = agent.makefile("rb")


def ask(op, **fields):
    """One line to the agent, one line back: docs/agent-protocol.md."""
    agent.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
    answer = json.loads(lines.readline() or '{"ok":false,"error":{"code":"gone","message":"no answer"}}')
    if not answer["ok"]:
        raise PermissionError("{code}: {message}".format(**answer["error"]))
    return answer["result"]


def call(request, authorization=None, verb="POST"):
    """A JSON-RPC request as it is, or a path for GET, to the exchange. Follows no redirect."""
    path = request if verb == "GET" else f"{ADDRESS.path}/{request['method']}"
    headers = {"Content-Type": "application/json", **({"Authorization": authorization} if authorization else {})}
    exchange = CONNECTION(ADDRESS.netloc, timeout=30)
    exchange.request(verb, path, None if verb == "GET" else json.dumps(request), headers)
    answer = json.load(exchange.getresponse())
    if "error" in answer:
        raise RuntimeError("{code}: {message}".format(**answer["error"]))
    return answer["result"]


if __name__ == "__main__":
    summary = {"jsonrpc": "2.0", "id": 2, "method": "private/get_account_summary", "params": {"currency": "BTC"}}
    # A signed login, made by the agent and sent by us. The name of a session is ours to add, as a
    # scope is not signed; without one, each login uses up one of the sixteen that a key has.
    login = ask("auth", key=KEY)
    login["params"]["scope"] = "session:agent_client"
    session = call(login)
    print("auth", session["scope"], call(summary, "Bearer " + session["access_token"])["currency"])
    # A token, for which the agent logs in itself: with fewer rights than the key has.
    token = ask("token", key=KEY, scope="account:read")
    print("token", token["scope"], call(summary, "Bearer " + token["access_token"])["currency"])
    # One signed request, without login or token, if the agent's config.toml lists it.
    path = f"{ADDRESS.path}/private/get_positions?currency=BTC"
    try:
        header = ask("rest", key=KEY, method="GET", path=path)["authorization"]
        print("rest", len(call(path, header, verb="GET")), "positions")
    except PermissionError as refusal:
        print("rest", refusal)
