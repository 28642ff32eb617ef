"""The formats of strings that a pattern can hold, and those that say nothing about the text.

Sources: RFC 3339, 5321, 3986, 4122, 4291, 4648, 6901 and what Zod, Pydantic and OpenAPI call so. Where a pattern cannot
be as wide as the format, it is narrower: an answer is right either way.
"""

_DAYS = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
    "02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"  # Python and SQL know no year 0
_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = f"(?:{_YEAR}-{_DAYS}|{_LEAP}-02-29)"
_LOCAL_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
_TIME = rf"{_LOCAL_TIME}(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_NUMBERED = "[0-9]{1,6}"
_CLOCK = f"T(?:{_NUMBERED}H(?:{_NUMBERED}M)?(?:{_NUMBERED}S)?|{_NUMBERED}M(?:{_NUMBERED}S)?|{_NUMBERED}S)"
_CALENDAR = f"(?:{_NUMBERED}Y(?:{_NUMBERED}M)?(?:{_NUMBERED}D)?|{_NUMBERED}M(?:{_NUMBERED}D)?|{_NUMBERED}D)"
_DURATION = f"P(?:{_CALENDAR}(?:{_CLOCK})?|{_CLOCK}|{_NUMBERED}W)"

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_EMAIL = rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+[A-Za-z]{{2,24}}"

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_H16 = "[0-9a-fA-F]{1,4}"
_IPV6 = (
    f"(?:(?:{_H16}:){{7}}{_H16}|(?:{_H16}:){{1,7}}:|(?:{_H16}:){{1,6}}:{_H16}|(?:{_H16}:){{1,5}}(?::{_H16}){{1,2}}|"
    f"(?:{_H16}:){{1,4}}(?::{_H16}){{1,3}}|(?:{_H16}:){{1,3}}(?::{_H16}){{1,4}}|(?:{_H16}:){{1,2}}(?::{_H16}){{1,5}}|"
    f"{_H16}:(?::{_H16}){{1,6}}|:(?::{_H16}){{1,7}}|::)"
)
_BITS4, _BITS6 = "(?:[12]?[0-9]|3[0-2])", "(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])"
_ANY_ADDRESS = f"(?:{_IPV4}|{_IPV6})"
_CIDR4, _CIDR6 = f"{_IPV4}/{_BITS4}", f"{_IPV6}/{_BITS6}"
# A network's address has no bits beyond its prefix; those of whole octets can be told by a pattern.
_NETWORK4 = rf"(?:{_OCTET}\.0\.0\.0/8|{_OCTET}\.{_OCTET}\.0\.0/16|(?:{_OCTET}\.){{3}}0/24|{_IPV4}/32)"
_NETWORK6 = f"(?:{_H16}::/16|{_H16}:{_H16}::/32|(?:{_H16}:){{3}}:/48|(?:{_H16}:){{4}}:/64|{_IPV6}/128)"

_PATH = "[A-Za-z0-9._~!$&'()*+,;=:@%/-]"
_TAIL = rf"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{{2}})*)?(?:\?{_PATH}*)?(?:\#{_PATH}*)?".replace(
    f"{_PATH}*", "(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-F]{2})*"
)
_URL = rf"[a-z][a-z0-9+.-]{{0,30}}://{_HOST}(?::[1-9][0-9]{{0,3}})?{_TAIL}"
_RELATIVE = rf"(?:/|\./|\.\./)?(?:[A-Za-z0-9._~-]+/)*[A-Za-z0-9._~-]*(?:\?{_PATH}*)?(?:\#{_PATH}*)?".replace(
    f"{_PATH}*", "(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-F]{2})*"
)

_HEX = "[0-9a-fA-F]"
_BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_BASE64URL = "(?:[A-Za-z0-9_-]{4})*"  # Zod takes none that is padded, Pydantic none that is not
_PADDED64URL = "(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?"
_POINTER = "(?:/(?:[^/~]|~[01])*)*"
_CROCKFORD = "[0-9A-HJKMNP-TV-Z]"


def _uuid(version: str) -> str:
    return f"{_HEX}{{8}}-{_HEX}{{4}}-{version}{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}"


_ANY_UUID = f"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"

PATTERNS: dict[str, str] = {
    "date-time": f"{_DATE}T{_TIME}",
    "datetime": f"{_DATE}T{_TIME}",
    "date": _DATE,
    "time": _TIME,
    "duration": _DURATION,
    "email": _EMAIL,
    "idn-email": _EMAIL,
    "hostname": _HOST,
    "host-name": _HOST,
    "idn-hostname": _HOST,
    "ipv4": _IPV4,
    "ip-address": _IPV4,
    "ipv6": _IPV6,
    "ip": _ANY_ADDRESS,
    "ipvanyaddress": _ANY_ADDRESS,
    "cidr": f"(?:{_CIDR4}|{_CIDR6})",
    "cidrv4": _CIDR4,
    "cidrv6": _CIDR6,
    "ipv4interface": _CIDR4,
    "ipv6interface": _CIDR6,
    "ipvanyinterface": f"(?:{_CIDR4}|{_CIDR6})",
    "ipv4network": _NETWORK4,
    "ipv6network": _NETWORK6,
    "ipvanynetwork": f"(?:{_NETWORK4}|{_NETWORK6})",
    "url": _URL,
    "multi-host-uri": _URL,
    "iri": f"(?:{_URL}|mailto:{_EMAIL}|urn:[a-z0-9]{{2,31}}:[A-Za-z0-9._:-]+)",
    "uri-reference": f"(?:{_URL}|{_RELATIVE})",
    "iri-reference": f"(?:{_URL}|{_RELATIVE})",
    "uri-template": f"(?:{_URL}|{_RELATIVE})",
    "uuid": _ANY_UUID,
    "guid": _ANY_UUID,
    "json-pointer": _POINTER,
    "relative-json-pointer": f"(?:0|[1-9][0-9]{{0,8}})(?:#|{_POINTER})",
    "json-pointer-uri-fragment": r"\#(?:/(?:[A-Za-z0-9._!$&'()*+,;=:@-]|~[01])*)*",
    "byte": _BASE64,
    "base64": _BASE64,
    "base64url": _BASE64URL,
    "base64urlencode": _PADDED64URL,
    "jwt": r"eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+",
    "ulid": f"[0-7]{_CROCKFORD}{{25}}",
    "cuid": "c[a-z0-9]{24}",
    "cuid2": "[a-z][a-z0-9]{23}",
    "nanoid": "[A-Za-z0-9_-]{21}",
    "xid": "[0-9a-v]{20}",
    "ksuid": "[A-Za-z0-9]{27}",
    "e164": r"\+[1-9][0-9]{6,14}",
    "color": f"#(?:{_HEX}{{6}}|{_HEX}{{3}})",
    "hex": f"(?:{_HEX}{{2}})*",
    "mac": f"{_HEX}{{2}}(?::{_HEX}{{2}}){{5}}",
    "decimal": r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?",
    "lowercase": r"[^\p{Lu}\p{Lt}]*",
    "uppercase": r"[^\p{Ll}\p{Lt}]*",
    "emoji": r"\p{Emoji_Presentation}+",
} | {f"{name}{version}": _uuid(str(version)) for version in range(1, 9) for name in ("uuid", "uuidv", "guidv")}

# What only says how a text is shown or meant: any text is one.
FREE = {"password", "binary", "textarea", "enum", "text", "multiline", "string", "markdown", "html", "unknown", ""}

# OpenAPI and others size numbers this way: the least and the largest.
RANGES: dict[str, tuple[int, int]] = {
    f"{sign}int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if not sign else (0, 2**bits - 1)
    for bits in (8, 16, 32, 64)
    for sign in ("", "u")
} | {"uint": (0, 2**64 - 1)}
