"""TLS towards upstreams: one context per upstream, built when it is."""

import ssl

from proxy.policy.snapshot import UpstreamTls


def client_context(tls: UpstreamTls) -> ssl.SSLContext:
    """The context for connections under `tls`.

    Verifies against `ca`, else the system's authorities. Raises OSError (which ssl.SSLError is)
    where a file cannot be read or used.
    """
    context = ssl.create_default_context(cafile=tls.ca)
    context.set_alpn_protocols(["http/1.1"])
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
