"""The smallest guest that shows whether a hypervisor can run one: a boot sector that says so on its serial port.

It goes to protected mode and returns from an interrupt there, as every boot loader does: there is a kind of KVM which
runs the real mode instructions that come before and gives up at this one (seen in a nested machine).
"""

GREETING = b"a guest runs here\n"

SECTOR_BYTES = 512
DISK_BYTES = 1 << 20  # the firmware of a PC does not read a disk of less than a cylinder

# Loaded by the firmware at 0x7c00.
CODE = bytes.fromhex(
    "fa"  # cli
    "31c0"  # xor ax, ax
    "8ed8"  # mov ds, ax
    "0f0116407c"  # lgdt [table]
    "0f20c0"  # mov eax, cr0
    "0c01"  # or al, 1
    "0f22c0"  # mov cr0, eax          protected mode
    "ea177c0800"  # jmp 0x08:protected
    "66b81000"  # protected: mov ax, 0x10
    "8ed8"  # mov ds, ax
    "8ed0"  # mov ss, ax
    "bc007c0000"  # mov esp, 0x7c00
    "9c"  # pushfd
    "0e"  # push cs
    "682c7c0000"  # push flat
    "cf"  # iretd
    "be5e7c0000"  # flat: mov esi, text
    "66baf803"  # mov dx, 0x3f8         the first serial port
    "ac"  # next: lodsb
    "84c0"  # test al, al
    "7403"  # jz halt
    "ee"  # out dx, al
    "ebf8"  # jmp next
    "f4"  # halt: hlt
    "ebfd"  # jmp halt
    "1700467c0000"  # table: 23 bytes at 0x7c46
    "0000000000000000"  # no segment
    "ffff0000009acf00"  # 0x08: code, flat, 32 bits
    "ffff00000092cf00"  # 0x10: data, flat
)


def boot_disk() -> bytes:
    """A disk whose boot sector writes GREETING to the first serial port and halts."""
    code = CODE + GREETING + b"\0"
    sector = code.ljust(SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"
    return sector.ljust(DISK_BYTES, b"\0")
