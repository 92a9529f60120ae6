"""`hostler worker codec`: the HTTP server that Temporal's UI and CLI send payloads to, to have them decrypted.

Protocol: Temporal's codec server, a POST of `Payloads` as protobuf's JSON to a path that ends in /decode or /encode.
Browsers ask from the UI's page, so it answers them by the rules of CORS, and pages of other origins not at all.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import NoReturn
from urllib.parse import urlsplit

from aiohttp import web
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads

from hostler.codec import EncryptionCodec
from hostler.contract.errors import DecryptionFailed, InvalidRequest
from hostler.encryption import load_keys
from hostler.private_files import read_private
from hostler.settings import CodecSettings, Settings
from workers.codec.access import COOKIE, COOKIE_LIFE, SAME_USER, Access, load_tokens
from workers.codec.login import FORM
from workers.signals import stop_event

logger = logging.getLogger(__name__)

LARGEST = 16 << 20
ALLOWED_HEADERS = "Authorization, Authorization-Extras, Content-Type, X-Namespace"
LOOPBACK_NAMES = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Conversion = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]


class CodecServer:
    """The endpoint's answers."""

    def __init__(self, settings: Settings, access: Access) -> None:
        self._codec = EncryptionCodec(load_keys(settings))
        self._access = access
        self._namespace = settings.temporal.namespace
        self._ui_url = settings.temporal.ui_url
        self._origins = allowed_origins(settings)
        self._https = settings.codec.certificate is not None

    def application(self) -> web.Application:
        """What aiohttp serves."""
        application = web.Application(client_max_size=LARGEST, middlewares=[self._same_origins])
        application.add_routes(
            [
                web.get("/", self.form),
                web.post("/login", self.login),
                # Only the end of the path counts, so that it can be mounted anywhere.
                web.post("/{place:(.*/)?}decode", self.decode),
                web.post("/{place:(.*/)?}encode", self.encode),
            ]
        )
        return application

    async def decode(self, request: web.Request) -> web.Response:
        """Decrypt."""
        return await self._convert(request, self._codec.decode)

    async def encode(self, request: web.Request) -> web.Response:
        """Encrypt."""
        return await self._convert(request, self._codec.encode)

    async def form(self, request: web.Request) -> web.Response:
        """Ask for a token."""
        return web.Response(text=FORM, content_type="text/html")

    async def login(self, request: web.Request) -> NoReturn:
        """Give a browser that shows a token a cookie, and send it on to the UI."""
        token = (await request.post()).get("token")
        name = self._access.holder(token.strip()) if isinstance(token, str) else None
        if name is None:
            logger.warning("a login was refused", extra={"peer": request.remote})
            raise web.HTTPUnauthorized(text="this is nobody's token")
        logger.info("logged in", extra={"who": name, "peer": request.remote})
        answer = web.HTTPSeeOther(self._ui_url)
        answer.set_cookie(
            COOKIE,
            self._access.cookie(name),
            max_age=int(COOKIE_LIFE.total_seconds()),
            httponly=True,
            secure=self._https,
            # A browser sends a cookie from a page of another site only so, and only over HTTPS.
            samesite="None" if self._https else "Strict",
        )
        raise answer

    async def _convert(self, request: web.Request, convert: Conversion) -> web.Response:
        name = self._access.who(request)
        if name is None:
            logger.warning("refused", extra={"path": request.path, "peer": request.remote})
            raise web.HTTPUnauthorized(
                text="a token is needed, or a login here in the same browser", headers={"WWW-Authenticate": "Bearer"}
            )
        try:
            payloads = json_format.Parse(await request.read(), Payloads())
        except json_format.ParseError:
            raise web.HTTPBadRequest(text="the body is no JSON of Payloads") from None
        # Other namespaces are other clouds, and nothing of this one's keys.
        if request.headers.get("X-Namespace", self._namespace) == self._namespace:
            try:
                payloads = Payloads(payloads=await convert(payloads.payloads))
            except DecryptionFailed as error:
                raise web.HTTPBadRequest(text=str(error)) from None
        level = logging.DEBUG if name == SAME_USER else logging.INFO
        logger.log(level, "answered", extra={"who": name, "path": request.path, "payloads": len(payloads.payloads)})
        return web.json_response(json_format.MessageToDict(payloads))

    @web.middleware
    async def _same_origins(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """CORS: only the UI's pages may ask, and may do so with cookies."""
        origin = request.headers.get("Origin")
        own = f"{request.scheme}://{request.host}"
        if origin is not None and origin not in self._origins and not (origin == own and request.path == "/login"):
            logger.warning("refused a page", extra={"origin": origin, "path": request.path})
            raise web.HTTPForbidden(text="pages of this origin may not ask here: see the setting codec.origins")
        try:
            preflight = request.method == "OPTIONS"
            answer = web.Response(status=204) if preflight else await handler(request)
        except web.HTTPException as refusal:
            _allow(refusal, origin)
            raise
        _allow(answer, origin)
        return answer


def _allow(answer: web.StreamResponse, origin: str | None) -> None:
    answer.headers["Vary"] = "Origin"
    answer.headers["Cache-Control"] = "no-store"
    if origin is not None:
        answer.headers["Access-Control-Allow-Origin"] = origin
        answer.headers["Access-Control-Allow-Credentials"] = "true"
        answer.headers["Access-Control-Allow-Methods"] = "POST, OPTIONS"
        answer.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS


def allowed_origins(settings: Settings) -> frozenset[str]:
    """The origins of the pages that may ask: the UI's, under both names of this machine, and those of the settings."""
    ui = urlsplit(settings.temporal.ui_url)
    origins = {f"{ui.scheme}://{ui.netloc}", *settings.codec.origins}
    if ui.hostname in LOOPBACK_NAMES:
        origins.add(f"{ui.scheme}://{ui.netloc.replace(ui.hostname, LOOPBACK_NAMES[ui.hostname])}")
    return frozenset(origins)


async def run(settings: Settings) -> None:
    """Serve until asked to stop.

    Raises:
        InvalidRequest: nobody could use it, or tokens would cross a network in clear.
        OSError: the address is taken.
    """
    stop = stop_event()
    codec = settings.codec
    access = Access(load_tokens(codec), codec.same_user)
    context = tls_context(codec)
    check_use(settings)
    runner = web.AppRunner(CodecServer(settings, access).application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, codec.address, codec.port, ssl_context=context).start()
        logger.info("codec ready", extra={"address": f"{codec.address}:{codec.port}"})
        await stop.wait()
    finally:
        await runner.cleanup()


def check_use(settings: Settings) -> None:
    """See that the endpoint has keys, and knows who may ask.

    Raises:
        InvalidRequest: what is missing.
    """
    if not load_keys(settings):
        raise InvalidRequest(
            "there is no encryption key, so there is nothing to decrypt",
            field="encryption.keys_file",
            remedy="hostler key create",
        )
    if not load_tokens(settings.codec) and not settings.codec.same_user:
        raise InvalidRequest(
            "nobody could use the endpoint: there is no token",
            field="codec.tokens_file",
            remedy="write a line <name>:<token> into a file of mode 0600, and set codec.tokens_file",
        )


def tls_context(codec: CodecSettings) -> ssl.SSLContext | None:
    """What HTTPS is spoken with, None for HTTP.

    Raises:
        InvalidRequest: tokens would cross a network in clear, or the certificate cannot be used.
    """
    if codec.certificate is None or codec.certificate_key is None:
        if not _is_loopback(codec.address):
            raise InvalidRequest(
                "tokens and what is decrypted would cross the network in clear",
                field="codec.address",
                value=codec.address,
                remedy="set codec.certificate and codec.certificate_key, or stay on 127.0.0.1 behind an HTTPS proxy",
            )
        return None
    read_private(codec.certificate_key, "codec.certificate_key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(codec.certificate, codec.certificate_key)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidRequest(
            f"the certificate cannot be used: {error.strerror or error}",
            field="codec.certificate",
            value=codec.certificate,
            remedy="give a PEM certificate and its own key",
        ) from None
    return context


def _is_loopback(address: str) -> bool:
    try:
        return address == "localhost" or ip_address(address).is_loopback
    except ValueError:
        return False
