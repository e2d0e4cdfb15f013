//! Numbers of RADIUS: packet codes, attributes, and values of those that are enumerations.

use crate::registry;

registry! {
    /// The Code field (RFC 2865 section 3, RFC 2866 section 3, RFC 5176 section 2.3).
    pub struct Code(u8) {
        ACCESS_REQUEST = 1,
        ACCESS_ACCEPT = 2,
        ACCESS_REJECT = 3,
        ACCOUNTING_REQUEST = 4,
        ACCOUNTING_RESPONSE = 5,
        ACCESS_CHALLENGE = 11,
        DISCONNECT_REQUEST = 40,
        DISCONNECT_ACK = 41,
        DISCONNECT_NAK = 42,
        COA_REQUEST = 43,
        COA_ACK = 44,
        COA_NAK = 45,
    }
}

registry! {
    /// The Type field of an attribute (RFC 2865 section 5, RFC 2866 section 5, RFC 2868 section 3, RFC 2869 section 5, RFC 3162
    /// section 2, RFC 3579 section 3, RFC 5176 section 3).
    pub struct Attribute(u8) {
        USER_NAME = 1,
        USER_PASSWORD = 2,
        CHAP_PASSWORD = 3,
        NAS_IP_ADDRESS = 4,
        NAS_PORT = 5,
        SERVICE_TYPE = 6,
        FRAMED_PROTOCOL = 7,
        FRAMED_IP_ADDRESS = 8,
        FRAMED_MTU = 12,
        REPLY_MESSAGE = 18,
        FRAMED_ROUTE = 22,
        STATE = 24,
        CLASS = 25,
        VENDOR_SPECIFIC = 26,
        SESSION_TIMEOUT = 27,
        IDLE_TIMEOUT = 28,
        CALLED_STATION_ID = 30,
        CALLING_STATION_ID = 31,
        NAS_IDENTIFIER = 32,
        PROXY_STATE = 33,
        ACCT_STATUS_TYPE = 40,
        ACCT_DELAY_TIME = 41,
        ACCT_INPUT_OCTETS = 42,
        ACCT_OUTPUT_OCTETS = 43,
        ACCT_SESSION_ID = 44,
        ACCT_AUTHENTIC = 45,
        ACCT_SESSION_TIME = 46,
        ACCT_INPUT_PACKETS = 47,
        ACCT_OUTPUT_PACKETS = 48,
        ACCT_TERMINATE_CAUSE = 49,
        ACCT_INPUT_GIGAWORDS = 52,
        ACCT_OUTPUT_GIGAWORDS = 53,
        EVENT_TIMESTAMP = 55,
        CHAP_CHALLENGE = 60,
        NAS_PORT_TYPE = 61,
        TUNNEL_TYPE = 64,
        TUNNEL_MEDIUM_TYPE = 65,
        EAP_MESSAGE = 79,
        MESSAGE_AUTHENTICATOR = 80,
        ACCT_INTERIM_INTERVAL = 85,
        NAS_IPV6_ADDRESS = 95,
        FRAMED_IPV6_PREFIX = 97,
        ERROR_CAUSE = 101,
    }
}

/// The Vendor-Id of Microsoft (RFC 2548 section 2).
pub const MICROSOFT: u32 = 311;

registry! {
    /// The Vendor-Type of Microsoft's attributes (RFC 2548 section 2).
    pub struct Microsoft(u8) {
        MS_CHAP_ERROR = 2,
        MS_CHAP_CHALLENGE = 11,
        MS_CHAP2_RESPONSE = 25,
        MS_CHAP2_SUCCESS = 26,
    }
}

registry! {
    /// Service-Type (RFC 2865 section 5.6, RFC 5176 section 3.2).
    pub struct ServiceType(u32) {
        FRAMED = 2,
        AUTHORIZE_ONLY = 17,
    }
}

registry! {
    /// Framed-Protocol (RFC 2865 section 5.7).
    pub struct FramedProtocol(u32) {
        PPP = 1,
    }
}

registry! {
    /// NAS-Port-Type (RFC 2865 section 5.41).
    pub struct NasPortType(u32) {
        VIRTUAL = 5,
    }
}

registry! {
    /// Tunnel-Type (RFC 2868 section 3.1), without a tag.
    pub struct TunnelType(u32) {
        L2TP = 3,
    }
}

registry! {
    /// Tunnel-Medium-Type (RFC 2868 section 3.2), without a tag.
    pub struct TunnelMedium(u32) {
        IPV4 = 1,
        IPV6 = 2,
    }
}

registry! {
    /// Acct-Status-Type (RFC 2866 section 5.1).
    pub struct StatusType(u32) {
        START = 1,
        STOP = 2,
        INTERIM_UPDATE = 3,
        ACCOUNTING_ON = 7,
        ACCOUNTING_OFF = 8,
    }
}

registry! {
    /// Acct-Authentic (RFC 2866 section 5.6): who has authenticated the user.
    pub struct Authentic(u32) {
        RADIUS = 1,
        LOCAL = 2,
    }
}

registry! {
    /// Acct-Terminate-Cause (RFC 2866 section 5.10).
    pub struct TerminateCause(u32) {
        USER_REQUEST = 1,
        LOST_CARRIER = 2,
        LOST_SERVICE = 3,
        IDLE_TIMEOUT = 4,
        SESSION_TIMEOUT = 5,
        ADMIN_RESET = 6,
        ADMIN_REBOOT = 7,
        PORT_ERROR = 8,
        NAS_ERROR = 9,
        NAS_REQUEST = 10,
        NAS_REBOOT = 11,
        PORT_UNNEEDED = 12,
        PORT_PREEMPTED = 13,
        PORT_SUSPENDED = 14,
        SERVICE_UNAVAILABLE = 15,
        CALLBACK = 16,
        USER_ERROR = 17,
        HOST_REQUEST = 18,
    }
}

registry! {
    /// Error-Cause (RFC 5176 section 3.5).
    pub struct ErrorCause(u32) {
        UNSUPPORTED_ATTRIBUTE = 401,
        MISSING_ATTRIBUTE = 402,
        NAS_IDENTIFICATION_MISMATCH = 403,
        INVALID_REQUEST = 404,
        UNSUPPORTED_SERVICE = 405,
        UNSUPPORTED_EXTENSION = 406,
        INVALID_ATTRIBUTE_VALUE = 407,
        SESSION_CONTEXT_NOT_FOUND = 503,
        RESOURCES_UNAVAILABLE = 506,
    }
}
