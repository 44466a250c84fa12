"""As much of ccxt 4.5's deribit as examples/python/ccxt_bearer.py uses, where ccxt is not installed."""
import json
import urllib.parse
import urllib.request


class AuthenticationError(Exception):
    pass


class deribit:
    requiredCredentials = {"apiKey": True, "secret": True, "uid": False}

    def __init__(self, config):
        assert not config
        self.urls = {"api": {"rest": "https://www.deribit.com"}, "test": {"rest": "https://test.deribit.com"}}

    def urlencode(self, params):
        return urllib.parse.urlencode(params)

    def sign(self, path, api, method, params):
        raise AuthenticationError("deribit requires \"secret\" credential")

    def private_get_get_account_summary(self, params):
        assert not any(self.requiredCredentials.values())
        signed = self.sign("get_account_summary", ["private"], "GET", params)
        request = urllib.request.Request(
            signed["url"], signed["body"], signed["headers"], method=signed["method"]
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)
