"""The contract of docs/channel.md: numbers and limits.

`guest/agent/protocol.h` is its other half; a test compares the two, name by name.
"""

from enum import IntEnum

PROTOCOL_VERSION = 1
MAGIC = b"SLW1"
HEADER_SIZE_BYTES = 24
MAX_FRAME_BYTES = 16 * 1024
MAX_PAYLOAD_BYTES = MAX_FRAME_BYTES - HEADER_SIZE_BYTES
MAX_MESSAGE_BYTES = 256 * 1024
RESYNC_ZERO_BYTES = MAX_FRAME_BYTES
RECORD_HEADER_SIZE_BYTES = 16
MAX_RECORD_BYTES = 8 * 1024
TREE_HEADER_SIZE_BYTES = 8
MAX_TREE_RECORD_BYTES = 256 * 1024
MAX_TREE_DATA_BYTES = 64 * 1024
FLAG_MORE = 1
FLAG_EOF = 2


class FrameType(IntEnum):
    """Frame types."""

    HELLO = 1
    HELLO_ACK = 2
    REQUEST = 3
    RESPONSE = 4
    EVENT = 5
    EVENT_ACK = 6
    DATA = 7
    ACK = 8
    PING = 9
    PONG = 10


class Op(IntEnum):
    """Operations of REQUEST."""

    SET_CLOCK = 1
    SEED_ENTROPY = 2
    CREATE = 3
    START = 4
    EXEC = 5
    SIGNAL = 6
    RESIZE = 7
    STATS = 8
    FREEZE = 9
    THAW = 10
    UPDATE = 11
    DELETE = 12
    POWER_OFF = 13
    QUIESCE = 14
    AWAIT_MEMORY = 15
    RECLAIM = 16
    PROCESSES = 17
    STAT_PATH = 18
    READ_TREE = 19
    WRITE_TREE = 20
    LIST_CHANGES = 21


class EventKind(IntEnum):
    """Kinds of EVENT."""

    PROCESS_EXITED = 1
    OOM = 2
    BACKPRESSURE = 3


class ProcessState(IntEnum):
    """PROCESS_STATE in HELLO_ACK."""

    CREATED = 1
    RUNNING = 2
    EXITED = 3


class Direction(IntEnum):
    """DIRECTION of a stream."""

    OUTPUT = 1
    INPUT = 2


class TreeView(IntEnum):
    """VIEW of the tree operations."""

    CONTAINER = 1
    ROOT = 2
    UPPER = 3


class TreeRecordKind(IntEnum):
    """Kinds of records in the streams of the tree operations."""

    ENTRY = 1
    DATA = 2
    END = 3


class ChangeKind(IntEnum):
    """CHANGE of an entry of LIST_CHANGES; the first three are Docker's numbers."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2
    SAME = 3


class Tag(IntEnum):
    """Tags of fields."""

    NONCE = 1
    VERSION_MIN = 2
    VERSION_MAX = 3
    VERSION = 4
    AGENT_VERSION = 5
    KERNEL = 6
    TIME_NS = 7
    UPTIME_NS = 8
    STAGE = 9
    STREAM = 10
    PROCESS = 11
    OP = 12
    ERRNO = 13
    MESSAGE = 14
    EVENT_KIND = 15
    DATA = 16
    CONTAINER = 17
    PROCESS_ID = 18
    PROCESS_STATE = 19
    PID = 20
    EXIT_CODE = 21
    SIGNAL = 22
    OOM_KILLED = 23
    STREAM_ID = 24
    DIRECTION = 25
    BASE = 26
    END = 27
    FLAGS = 28
    NAME = 29
    AT_NS = 30
    HOSTNAME = 31
    DOMAINNAME = 32
    LAYER = 33
    SCRATCH = 34
    SPILL_BYTES = 35
    READ_ONLY_ROOT = 36
    INIT = 37
    SECCOMP = 38
    MASKED_PATH = 39
    READ_ONLY_PATH = 40
    TMPFS = 41
    SHM_BYTES = 42
    FILE = 43
    SYSCTL = 44
    PATH = 45
    MODE = 46
    OPTIONS = 47
    VALUE = 48
    MEMORY_MAX_BYTES = 49
    MEMORY_SWAP_MAX_BYTES = 50
    CPU_QUOTA_US = 51
    CPU_PERIOD_US = 52
    CPU_WEIGHT = 53
    PIDS_MAX = 54
    PROCESS_SPEC = 55
    ARG = 56
    ENV = 57
    CWD = 58
    USER = 59
    GROUP = 60
    TTY = 61
    ROWS = 62
    COLUMNS = 63
    STDIN_STREAM = 64
    OUTPUT_STREAM = 65
    CAPABILITIES = 66
    NO_NEW_PRIVILEGES = 67
    RLIMIT = 68
    RESOURCE = 69
    SOFT = 70
    HARD = 71
    OOM_SCORE_ADJ = 72
    BLOCKED = 73
    COUNT = 74
    STAT_CPU_US = 75
    STAT_CPU_USER_US = 76
    STAT_CPU_SYSTEM_US = 77
    STAT_MEMORY_BYTES = 78
    STAT_MEMORY_ANON_BYTES = 79
    STAT_MEMORY_FILE_BYTES = 80
    STAT_MEMORY_LIMIT_BYTES = 81
    STAT_PIDS = 82
    STAT_IO_READ_BYTES = 83
    STAT_IO_WRITE_BYTES = 84
    STAT_OOM_KILLS = 85
    STAT_GUEST_MEMORY_TOTAL_BYTES = 86
    STAT_GUEST_MEMORY_AVAILABLE_BYTES = 87
    STAT_GUEST_CACHE_BYTES = 88
    STAT_GUEST_KERNEL_BYTES = 89
    STAT_SCRATCH_USED_BYTES = 90
    STAT_SCRATCH_TOTAL_BYTES = 91
    MEMORY_BYTES = 92
    PRIVILEGED = 93
    DEVICE = 94
    VIEW = 95
    FOLLOW = 96
    KEEP_KINDS = 97
    LINK = 98
    IS_HARD_LINK = 99
    SIZE_BYTES = 100
    UID = 101
    GID = 102
    DEVICE_NUMBER = 103
    FILE_KEY = 104
    XATTR = 105
    IS_OPAQUE = 106
    CHANGE = 107
