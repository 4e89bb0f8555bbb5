/* The loops of the data path in C; syncws/protocol/plain.py has each in Python.
 *
 * Both do the same, byte for byte, and the tests run against both. Nothing here
 * keeps state between calls but a Payload, which one thread fills.
 *
 * receive() and send() keep the interpreter lock: the sockets never block, so a
 * call takes microseconds, and to give the lock up and fight for it again takes
 * longer than that. Large writes give it up.
 *
 * References: RFC 6455 section 5 (frames), section 5.3 (masking); RFC 3629 (UTF-8).
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdint.h>
#include <string.h>

#ifndef MS_WINDOWS
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* Python ignores SIGPIPE */
#endif

/* Counts the changes to what the functions here take and return; native.py
 * takes no other. */
#define INTERFACE 1

#define FIN_TEXT 0x81
#define FIN_BINARY 0x82
#define MASKED 0x80

/* Bytes of a masked text that are unmasked on the stack. */
#define SMALL 4096

/* Bytes of the longest header, a masking key included. */
#define MAX_HEADER 14

/* Chunks for one sendmsg, well below any system's IOV_MAX. */
#define MAX_CHUNKS 64

/* Descriptors that one round of waiting tells of. */
#define MAX_EVENTS 1024

/* Bytes of a write for which the interpreter lock is given up. */
#define LARGE 131072

/* -- Masking ------------------------------------------------------------- */

/* `to` may be `from`. `phase` is the offset of the first byte in its payload. */
static void
xor_bytes(unsigned char *to, const unsigned char *from, size_t size, const unsigned char *key,
          size_t phase)
{
    unsigned char turned[8];
    uint64_t word, pattern;
    size_t i;

    for (i = 0; i < 8; i++) {
        turned[i] = key[(phase + i) & 3];
    }
    memcpy(&pattern, turned, 8);
    for (i = 0; i + 8 <= size; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= pattern;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++) {
        to[i] = from[i] ^ turned[i & 7];
    }
}

static PyObject *
wrong_count(const char *name, int wanted)
{
    return PyErr_Format(PyExc_TypeError, "%s takes %d arguments", name, wanted);
}

static int
get_key(PyObject *object, unsigned char **key)
{
    char *bytes;
    Py_ssize_t size;

    if (PyBytes_AsStringAndSize(object, &bytes, &size) < 0) {
        return -1;
    }
    if (size != 4) {
        PyErr_Format(PyExc_ValueError, "a masking key has 4 bytes, not %zd", size);
        return -1;
    }
    *key = (unsigned char *)bytes;
    return 0;
}

/* The first byte of a frame, or -1. */
static int
get_first(PyObject *object)
{
    long first = PyLong_AsLong(object);

    if (PyErr_Occurred()) {
        return -1;
    }
    if (first < 0 || first > 255) {
        PyErr_Format(PyExc_ValueError, "a frame's first byte is 0 to 255, not %ld", first);
        return -1;
    }
    return (int)first;
}

static PyObject *
speedups_mask(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    char *data;
    unsigned char *key;
    Py_ssize_t size;
    PyObject *result;

    if (count != 2) {
        return wrong_count("mask", 2);
    }
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0 || get_key(args[1], &key) < 0) {
        return NULL;
    }
    result = PyBytes_FromStringAndSize(NULL, size);
    if (result != NULL) {
        xor_bytes((unsigned char *)PyBytes_AsString(result), (unsigned char *)data, (size_t)size,
                  key, 0);
    }
    return result;
}

/* -- Reading frames ------------------------------------------------------- */

/* A new `Event`, which is a tuple of three. Steals `data`, also when it fails. */
static PyObject *
new_event(PyTypeObject *type, allocfunc alloc, long opcode, PyObject *data)
{
    PyObject *event, *number;

    if (data == NULL) {
        return NULL;
    }
    number = PyLong_FromLong(opcode);
    event = number != NULL ? alloc(type, 3) : NULL;
    if (event == NULL) {
        Py_DECREF(data);
        Py_XDECREF(number);
        return NULL;
    }
    Py_INCREF(Py_True);
    /* The first two cannot fail: the event is a tuple, new and long enough. */
    PyTuple_SetItem(event, 0, number);
    PyTuple_SetItem(event, 1, data);
    PyTuple_SetItem(event, 2, Py_True);
    return event;
}

static PyObject *
unmasked_bytes(const unsigned char *from, size_t size, const unsigned char *key)
{
    PyObject *result;

    if (key == NULL) {
        return PyBytes_FromStringAndSize((const char *)from, (Py_ssize_t)size);
    }
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (result != NULL) {
        xor_bytes((unsigned char *)PyBytes_AsString(result), from, size, key, 0);
    }
    return result;
}

static PyObject *
unmasked_text(const unsigned char *from, size_t size, const unsigned char *key)
{
    unsigned char small[SMALL], *plain = small;
    PyObject *result;

    if (key == NULL) {
        return PyUnicode_DecodeUTF8((const char *)from, (Py_ssize_t)size, "strict");
    }
    if (size > SMALL) {
        plain = PyMem_Malloc(size);
        if (plain == NULL) {
            return PyErr_NoMemory();
        }
    }
    xor_bytes(plain, from, size, key, 0);
    result = PyUnicode_DecodeUTF8((const char *)plain, (Py_ssize_t)size, "strict");
    if (plain != small) {
        PyMem_Free(plain);
    }
    return result;
}

/* The size of the frame's header and, in *size, that of its payload; 0 if the
 * header is not complete or can only be refused. */
static size_t
read_header(const unsigned char *at, size_t available, unsigned mask_bit, uint64_t *size)
{
    size_t header = 2, i;

    *size = at[1] ^ mask_bit; /* were the bit wrong, this would be 128 or more */
    if (*size > 127) {
        return 0;
    }
    if (*size > 125) {
        size_t width = *size == 126 ? 2 : 8;
        if (available < 2 + width) {
            return 0;
        }
        *size = 0;
        for (i = 0; i < width; i++) {
            *size = *size << 8 | at[2 + i];
        }
        if (*size < (width == 2 ? 126u : 65536u)) {
            return 0;
        }
        header += width;
    }
    if (mask_bit) {
        header += 4;
    }
    return available >= header ? header : 0;
}

/* What frames are read for. */
typedef struct {
    unsigned mask_bit;
    uint64_t limit;
    Py_ssize_t most;
    PyTypeObject *type;
    allocfunc alloc;
} reading;

static int
get_reading(PyObject *const *args, reading *how)
{
    unsigned long mask_bit = PyLong_AsUnsignedLong(args[0]);

    how->mask_bit = (unsigned)mask_bit;
    how->limit = PyLong_AsUnsignedLongLong(args[1]);
    how->most = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred()) {
        return -1;
    }
    if (mask_bit & ~(unsigned long)MASKED) {
        PyErr_Format(PyExc_ValueError, "the mask bit is 0x80 or 0, not %lu", mask_bit);
        return -1;
    }
    if (!PyType_Check(args[3]) ||
        !PyType_IsSubtype((PyTypeObject *)args[3], &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "an event's type is a type of tuple");
        return -1;
    }
    how->type = (PyTypeObject *)args[3];
    how->alloc = (allocfunc)PyType_GetSlot(how->type, Py_tp_alloc);
    return 0;
}

/* Append an event for each plain frame; return where they end, or -1. */
static Py_ssize_t
read_plain(const unsigned char *data, Py_ssize_t pos, Py_ssize_t end, const reading *how,
           PyObject *events)
{
    Py_ssize_t made = 0;

    while (end - pos >= 2 && made < how->most) {
        const unsigned char *at = data + pos, *payload, *key;
        size_t available = (size_t)(end - pos), header;
        uint64_t size;
        PyObject *event, *value;
        int failed;

        if (at[0] != FIN_TEXT && at[0] != FIN_BINARY) {
            break;
        }
        header = read_header(at, available, how->mask_bit, &size);
        if (header == 0 || size > how->limit || size > available - header) {
            break;
        }
        payload = at + header;
        key = how->mask_bit ? payload - 4 : NULL;
        if (at[0] == FIN_TEXT) {
            value = unmasked_text(payload, (size_t)size, key);
            if (value == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
                PyErr_Clear(); /* the caller tells where and why */
                break;
            }
        }
        else {
            value = unmasked_bytes(payload, (size_t)size, key);
        }
        event = new_event(how->type, how->alloc, at[0] & 0x0F, value);
        if (event == NULL) {
            return -1;
        }
        failed = PyList_Append(events, event);
        Py_DECREF(event);
        if (failed < 0) {
            return -1;
        }
        pos += (Py_ssize_t)(header + size);
        made++;
    }
    return pos;
}

/* The bytes of a bytes object or a bytearray. */
static const char *
get_data(PyObject *object, Py_ssize_t *length)
{
    char *data;

    if (PyByteArray_Check(object)) {
        *length = PyByteArray_Size(object);
        return PyByteArray_AsString(object);
    }
    return PyBytes_AsStringAndSize(object, &data, length) < 0 ? NULL : data;
}

/* read_frames(data, pos, end, mask_bit, limit, most, event_type, events) */
static PyObject *
speedups_read_frames(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    const unsigned char *data;
    Py_ssize_t pos, end, length;
    reading how;

    if (count != 8) {
        return wrong_count("read_frames", 8);
    }
    data = (const unsigned char *)get_data(args[0], &length);
    if (data == NULL) {
        return NULL;
    }
    pos = PyLong_AsSsize_t(args[1]);
    end = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred() || get_reading(args + 3, &how) < 0) {
        return NULL;
    }
    if (pos < 0 || end > length || !PyList_Check(args[7])) {
        PyErr_SetString(PyExc_ValueError, "read_frames: a wrong range, or no list");
        return NULL;
    }
    pos = read_plain(data, pos, end, &how, args[7]);
    return pos < 0 ? NULL : PyLong_FromSsize_t(pos);
}

/* -- Writing frames ------------------------------------------------------- */

static size_t
write_header(unsigned char *to, unsigned first, uint64_t size, int masked)
{
    unsigned bit = masked ? MASKED : 0;
    int i;

    to[0] = (unsigned char)first;
    if (size < 126) {
        to[1] = (unsigned char)(bit | size);
        return 2;
    }
    if (size < 65536) {
        to[1] = (unsigned char)(bit | 126);
        to[2] = (unsigned char)(size >> 8);
        to[3] = (unsigned char)size;
        return 4;
    }
    to[1] = (unsigned char)(bit | 127);
    for (i = 0; i < 8; i++) {
        to[2 + i] = (unsigned char)(size >> (56 - 8 * i));
    }
    return 10;
}

/* Write a frame to `to`, which has room; return its length. */
static size_t
write_frame(unsigned char *to, unsigned first, const unsigned char *payload, size_t size,
            const unsigned char *key)
{
    size_t length = write_header(to, first, size, key != NULL);

    if (key == NULL) {
        memcpy(to + length, payload, size);
    }
    else {
        memcpy(to + length, key, 4);
        length += 4;
        xor_bytes(to + length, payload, size, key, 0);
    }
    return length + size;
}

static PyObject *
speedups_frame(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    unsigned char *key = NULL;
    int first;
    char *payload;
    Py_ssize_t size, header;
    PyObject *result;

    if (count != 3) {
        return wrong_count("frame", 3);
    }
    first = get_first(args[0]);
    if (first < 0 || PyBytes_AsStringAndSize(args[1], &payload, &size) < 0 ||
        (args[2] != Py_None && get_key(args[2], &key) < 0)) {
        return NULL;
    }
    header = (size < 126 ? 2 : size < 65536 ? 4 : 10) + (key != NULL ? 4 : 0);
    result = PyBytes_FromStringAndSize(NULL, header + size);
    if (result != NULL) {
        write_frame((unsigned char *)PyBytes_AsString(result), (unsigned)first,
                    (unsigned char *)payload, (size_t)size, key);
    }
    return result;
}

/* -- UTF-8 as it arrives -------------------------------------------------- */

/* What a character that is not complete needs next. */
typedef struct {
    unsigned need;           /* bytes still to come */
    unsigned char low, high; /* the range of the next one */
    unsigned char surrogates; /* what has begun may be one, which is no character */
} utf8_state;

/* Whether `size` more bytes are good, with characters cut anywhere. */
static int
utf8_goes_on(utf8_state *state, const unsigned char *at, size_t size)
{
    const unsigned char *end = at + size;

    while (at < end) {
        unsigned char byte;

        if (state->need) {
            if (*at < state->low || *at > state->high) {
                return 0;
            }
            /* Of a surrogate Python's decoder refuses the last byte, not the
             * second; so it is here. */
            if (state->need == 2 && state->surrogates && *at > 0x9F) {
                state->low = 0xFF;
                state->high = 0x00;
            }
            else {
                state->low = 0x80;
                state->high = 0xBF;
            }
            at++;
            state->need--;
            continue;
        }
        while (end - at >= 8) {
            uint64_t word;
            memcpy(&word, at, 8);
            if (word & UINT64_C(0x8080808080808080)) {
                break;
            }
            at += 8;
        }
        if (at == end) {
            break;
        }
        byte = *at++;
        if (byte < 0x80) {
            continue;
        }
        state->low = 0x80;
        state->high = 0xBF;
        if (byte >= 0xC2 && byte <= 0xDF) {
            state->need = 1;
        }
        else if (byte >= 0xE0 && byte <= 0xEF) {
            state->need = 2;
            if (byte == 0xE0) {
                state->low = 0xA0; /* no shorter form exists */
            }
            state->surrogates = byte == 0xED;
        }
        else if (byte >= 0xF0 && byte <= 0xF4) {
            state->need = 3;
            state->surrogates = 0;
            if (byte == 0xF0) {
                state->low = 0x90;
            }
            else if (byte == 0xF4) {
                state->high = 0x8F; /* nothing above U+10FFFF */
            }
        }
        else {
            return 0;
        }
    }
    return 1;
}

/* -- A payload that arrives in pieces ------------------------------------- */

/* Room that is made at once. A larger payload gets more as it arrives, since
 * the peer's word for its size is not worth that much. */
#define FIRST_ROOM 1048576

/* Its bytes are received into the object that the application gets. */
typedef struct {
    PyObject_HEAD
    PyObject *bytes; /* NULL once taken */
    Py_ssize_t size;
    Py_ssize_t room; /* the length of `bytes` */
    Py_ssize_t filled;
    Py_ssize_t views; /* of `bytes`, which must stay where it is meanwhile */
    unsigned char key[4];
    int masked;
    int text;
    utf8_state utf8;
} payload_object;

/* malloc() gives free memory at the end of its heap back to the system and
 * asks for large blocks anew each time, and the system clears what it gives:
 * for a stream of large messages that takes longer than all the rest. It
 * learns from a block that is freed to keep twice as much. Not touched, the
 * block costs nothing. */
static void
expect_blocks_of(Py_ssize_t size)
{
    static Py_ssize_t expected = 65536;

    if (size > expected) {
        expected = size;
        PyMem_Free(PyMem_Malloc(4 * (size_t)size));
    }
}

static PyObject *
payload_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    payload_object *self;
    PyObject *key;
    unsigned char *bytes = NULL;
    Py_ssize_t size;
    int text;
    allocfunc alloc;

    if (!PyArg_ParseTuple(args, "nOp", &size, &key, &text)) {
        return NULL;
    }
    if (key != Py_None && get_key(key, &bytes) < 0) {
        return NULL;
    }
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "a payload's size is negative");
        return NULL;
    }
    alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    self = (payload_object *)alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->size = size;
    self->room = size < FIRST_ROOM ? size : FIRST_ROOM;
    expect_blocks_of(self->room);
    self->text = text;
    self->masked = bytes != NULL;
    if (bytes != NULL) {
        memcpy(self->key, bytes, 4);
    }
    self->bytes = PyBytes_FromStringAndSize(NULL, self->room);
    if (self->bytes == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
payload_dealloc(payload_object *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    Py_CLEAR(self->bytes);
    release(self);
    Py_DECREF(type);
}

/* See that there is room for one byte at least, if any is to come. */
static int
payload_make_room(payload_object *self)
{
    Py_ssize_t room = self->room;
    PyObject *larger;

    if (self->bytes == NULL) {
        PyErr_SetString(PyExc_ValueError, "the payload was taken");
        return -1;
    }
    if (self->filled < room || room == self->size) {
        return 0;
    }
    if (self->views) {
        PyErr_SetString(PyExc_BufferError, "the payload's space is still in use");
        return -1;
    }
    room = room < self->size / 2 ? 2 * room : self->size;
    larger = PyBytes_FromStringAndSize(NULL, room);
    if (larger == NULL) {
        return -1;
    }
    memcpy(PyBytes_AsString(larger), PyBytes_AsString(self->bytes), (size_t)self->filled);
    Py_DECREF(self->bytes);
    self->bytes = larger;
    self->room = room;
    return 0;
}

static int
payload_get_buffer(payload_object *self, Py_buffer *view, int flags)
{
    view->obj = NULL;
    if (payload_make_room(self) < 0) {
        return -1;
    }
    if (PyBuffer_FillInfo(view, (PyObject *)self, PyBytes_AsString(self->bytes) + self->filled,
                          self->room - self->filled, 0, flags) < 0) {
        return -1;
    }
    self->views++;
    return 0;
}

static void
payload_release_buffer(payload_object *self, Py_buffer *view)
{
    self->views--;
}

/* A memoryview of where the next bytes can be received to. */
static PyObject *
payload_space(payload_object *self, PyObject *ignored)
{
    return PyMemoryView_FromObject((PyObject *)self);
}

/* Unmask and check `size` more bytes that are in place; whether they are good. */
static int
payload_grow(payload_object *self, Py_ssize_t size)
{
    unsigned char *at = (unsigned char *)PyBytes_AsString(self->bytes) + self->filled;

    if (self->masked) {
        xor_bytes(at, at, (size_t)size, self->key, (size_t)self->filled);
    }
    self->filled += size;
    if (!self->text) {
        return 1;
    }
    return utf8_goes_on(&self->utf8, at, (size_t)size) &&
           !(self->filled == self->size && self->utf8.need);
}

static PyObject *
payload_fill(payload_object *self, PyObject *number)
{
    Py_ssize_t size = PyLong_AsSsize_t(number);

    if (size == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (self->bytes == NULL || size < 0 || size > self->room - self->filled) {
        PyErr_SetString(PyExc_ValueError, "a payload has no room for that");
        return NULL;
    }
    return PyBool_FromLong(payload_grow(self, size));
}

/* add(data, start, stop) */
static PyObject *
payload_add(payload_object *self, PyObject *const *args, Py_ssize_t count)
{
    const char *from;
    Py_ssize_t length, start, size;
    int good = 1;

    if (count != 3) {
        return wrong_count("add", 3);
    }
    from = get_data(args[0], &length);
    start = PyLong_AsSsize_t(args[1]);
    size = PyLong_AsSsize_t(args[2]) - start;
    if (from == NULL || PyErr_Occurred()) {
        return NULL;
    }
    if (start < 0 || size < 0 || size > length - start) {
        PyErr_SetString(PyExc_ValueError, "add: the range is wrong");
        return NULL;
    }
    from += start;
    if (size > self->size - self->filled) {
        PyErr_SetString(PyExc_ValueError, "a payload has no room for that");
        return NULL;
    }
    do {
        Py_ssize_t part;
        if (payload_make_room(self) < 0) {
            return NULL;
        }
        part = self->room - self->filled < size ? self->room - self->filled : size;
        memcpy(PyBytes_AsString(self->bytes) + self->filled, from, (size_t)part);
        good = payload_grow(self, part);
        from += part;
        size -= part;
    } while (good && size);
    return PyBool_FromLong(good);
}

/* What has been filled, unmasked. */
static PyObject *
payload_so_far(payload_object *self, PyObject *ignored)
{
    if (self->bytes == NULL) {
        PyErr_SetString(PyExc_ValueError, "the payload was taken");
        return NULL;
    }
    return PyBytes_FromStringAndSize(PyBytes_AsString(self->bytes), self->filled);
}

static PyObject *
payload_take(payload_object *self, PyObject *ignored)
{
    PyObject *bytes = self->bytes, *text;

    if (bytes == NULL || self->filled != self->size) {
        PyErr_SetString(PyExc_ValueError, "the payload is not complete, or was taken");
        return NULL;
    }
    if (self->views) {
        PyErr_SetString(PyExc_BufferError, "the payload's space is still in use");
        return NULL;
    }
    self->bytes = NULL;
    if (!self->text) {
        return bytes;
    }
    text = PyUnicode_DecodeUTF8(PyBytes_AsString(bytes), self->size, "strict");
    Py_DECREF(bytes);
    return text;
}

static PyMethodDef payload_methods[] = {
    {"space", (PyCFunction)(void (*)(void))payload_space, METH_NOARGS, NULL},
    {"fill", (PyCFunction)(void (*)(void))payload_fill, METH_O, NULL},
    {"add", (PyCFunction)(void (*)(void))payload_add, METH_FASTCALL, NULL},
    {"so_far", (PyCFunction)(void (*)(void))payload_so_far, METH_NOARGS, NULL},
    {"take", (PyCFunction)(void (*)(void))payload_take, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot payload_slots[] = {
    {Py_tp_new, (void *)payload_new},
    {Py_tp_dealloc, (void *)payload_dealloc},
    {Py_tp_methods, (void *)payload_methods},
    {Py_bf_getbuffer, (void *)payload_get_buffer},
    {Py_bf_releasebuffer, (void *)payload_release_buffer},
    {0, NULL},
};

static PyType_Spec payload_spec = {
    "syncws._speedups.Payload", sizeof(payload_object), 0, Py_TPFLAGS_DEFAULT, payload_slots,
};

/* -- Sockets --------------------------------------------------------------- */

#ifndef MS_WINDOWS

static PyObject *
failed(int error, Py_ssize_t blocked)
{
    if (error == EAGAIN || error == EWOULDBLOCK || error == EINTR) {
        return PyLong_FromSsize_t(blocked);
    }
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* receive(fd, buffer): bytes received, 0 at the end, -1 if there is nothing. */
static PyObject *
speedups_receive(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer view;
    Py_ssize_t size;
    long fd;
    int error;

    if (count != 2) {
        return wrong_count("receive", 2);
    }
    fd = PyLong_AsLong(args[0]);
    if ((fd == -1 && PyErr_Occurred()) || PyObject_GetBuffer(args[1], &view, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    /* A bytearray is room for whatever comes, as a rule little; a view of that
     * size is the room for a large payload. */
    if (view.len < LARGE || PyByteArray_Check(args[1])) {
        size = recv((int)fd, view.buf, (size_t)view.len, MSG_DONTWAIT);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        size = recv((int)fd, view.buf, (size_t)view.len, MSG_DONTWAIT);
        Py_END_ALLOW_THREADS
    }
    error = errno;
    PyBuffer_Release(&view);
    return size < 0 ? failed(error, -1) : PyLong_FromSsize_t(size);
}

/* send(fd, data): bytes written, 0 if there is no room. */
static PyObject *
speedups_send(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer view;
    Py_ssize_t sent;
    long fd;
    int error;

    if (count != 2) {
        return wrong_count("send", 2);
    }
    fd = PyLong_AsLong(args[0]);
    if ((fd == -1 && PyErr_Occurred()) || PyObject_GetBuffer(args[1], &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (view.len < LARGE) {
        sent = send((int)fd, view.buf, (size_t)view.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        sent = send((int)fd, view.buf, (size_t)view.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        Py_END_ALLOW_THREADS
    }
    error = errno;
    PyBuffer_Release(&view);
    return sent < 0 ? failed(error, 0) : PyLong_FromSsize_t(sent);
}

/* receive_frames(fd, mask_bit, limit, most, event_type, bytearray): a list of
 * events if all that has come were whole plain frames; that list, where they
 * end and where the bytes end, if there is more; else what receive() returns. */
static PyObject *
speedups_receive_frames(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    long fd;
    char *buffer;
    Py_ssize_t size, end;
    reading how;
    PyObject *events, *result;

    if (count != 6) {
        return wrong_count("receive_frames", 6);
    }
    fd = PyLong_AsLong(args[0]);
    if ((fd == -1 && PyErr_Occurred()) || get_reading(args + 1, &how) < 0) {
        return NULL;
    }
    if (!PyByteArray_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError, "receive_frames needs a bytearray");
        return NULL;
    }
    buffer = PyByteArray_AsString(args[5]);
    size = recv((int)fd, buffer, (size_t)PyByteArray_Size(args[5]), MSG_DONTWAIT);
    if (size <= 0) {
        return size < 0 ? failed(errno, -1) : PyLong_FromLong(0);
    }
    events = PyList_New(0);
    if (events == NULL) {
        return NULL;
    }
    end = read_plain((unsigned char *)buffer, 0, size, &how, events);
    if (end == size) {
        return events;
    }
    result = end < 0 ? NULL : Py_BuildValue("Onn", events, end, size);
    Py_DECREF(events);
    return result;
}

/* send_frame(fd, first, payload, key): None, or what there was no room for. */
static PyObject *
speedups_send_frame(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    unsigned char small[SMALL], *frame = small, *key = NULL;
    int first;
    char *payload;
    Py_ssize_t size, sent;
    size_t length;
    long fd;
    PyObject *rest = NULL;

    if (count != 4) {
        return wrong_count("send_frame", 4);
    }
    fd = PyLong_AsLong(args[0]);
    first = fd == -1 && PyErr_Occurred() ? -1 : get_first(args[1]);
    if (first < 0 || PyBytes_AsStringAndSize(args[2], &payload, &size) < 0 ||
        (args[3] != Py_None && get_key(args[3], &key) < 0)) {
        return NULL;
    }
    if (size > SMALL - MAX_HEADER) {
        frame = PyMem_Malloc((size_t)size + MAX_HEADER);
        if (frame == NULL) {
            return PyErr_NoMemory();
        }
    }
    length = write_frame(frame, (unsigned)first, (unsigned char *)payload, (size_t)size, key);
    sent = send((int)fd, frame, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == (Py_ssize_t)length) {
        Py_INCREF(Py_None);
        rest = Py_None;
    }
    else if (sent >= 0 || errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        sent = sent < 0 ? 0 : sent;
        rest = PyBytes_FromStringAndSize((char *)frame + sent, (Py_ssize_t)length - sent);
    }
    else {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    if (frame != small) {
        PyMem_Free(frame);
    }
    return rest;
}

/* send_many(fd, chunks): bytes written, 0 if there is no room. */
static PyObject *
speedups_send_many(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer views[MAX_CHUNKS];
    struct iovec parts[MAX_CHUNKS];
    struct msghdr message;
    Py_ssize_t total = 0, sent;
    long fd;
    int number = 0, error;
    PyObject *iterator, *chunk;

    if (count != 2) {
        return wrong_count("send_many", 2);
    }
    fd = PyLong_AsLong(args[0]);
    if (fd == -1 && PyErr_Occurred()) {
        return NULL;
    }
    iterator = PyObject_GetIter(args[1]);
    if (iterator == NULL) {
        return NULL;
    }
    while (number < MAX_CHUNKS && (chunk = PyIter_Next(iterator)) != NULL) {
        int wrong = PyObject_GetBuffer(chunk, &views[number], PyBUF_SIMPLE);
        Py_DECREF(chunk); /* the view keeps it */
        if (wrong < 0) {
            break;
        }
        parts[number].iov_base = views[number].buf;
        parts[number].iov_len = (size_t)views[number].len;
        total += views[number].len;
        number++;
    }
    Py_DECREF(iterator);
    memset(&message, 0, sizeof message);
    message.msg_iov = parts;
    message.msg_iovlen = (size_t)number;
    if (PyErr_Occurred()) {
        sent = -1;
    }
    else if (total < LARGE) {
        sent = sendmsg((int)fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        sent = sendmsg((int)fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        Py_END_ALLOW_THREADS
    }
    error = errno;
    while (number) {
        PyBuffer_Release(&views[--number]);
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    return sent < 0 ? failed(error, 0) : PyLong_FromSsize_t(sent);
}

#endif

/* -- Waiting --------------------------------------------------------------- */

#ifdef __linux__

/* What selectors call EVENT_READ and EVENT_WRITE. */
#define READ 1
#define WRITE 2

/* (owner, mask) for a descriptor that is ready; NULL, without an error, if
 * nobody owns it. An error or the end of a connection makes both ready. */
static PyObject *
find_owner(PyObject *owners, const struct epoll_event *event)
{
    PyObject *number, *found, *owner;
    long mask, got = 0;

    number = PyLong_FromLong(event->data.fd);
    if (number == NULL) {
        return NULL;
    }
    found = PyDict_GetItemWithError(owners, number);
    Py_DECREF(number);
    if (found == NULL) {
        return NULL;
    }
    owner = PyTuple_GetItem(found, 0);
    mask = owner != NULL ? PyLong_AsLong(PyTuple_GetItem(found, 1)) : -1;
    if (mask < 0) {
        return NULL;
    }
    if (event->events & ~(uint32_t)EPOLLOUT) {
        got |= READ;
    }
    if (event->events & ~(uint32_t)EPOLLIN) {
        got |= WRITE;
    }
    if ((got & mask) == mask) {
        Py_INCREF(found); /* the rule */
        return found;
    }
    return Py_BuildValue("Ol", owner, got & mask);
}

/* epoll_wait(epfd, milliseconds, owners): a list of (owner, mask).
 *
 * `owners` has that pair for each descriptor. Whoever waits here comes back
 * only when it has the interpreter lock again, and by then more is ready than
 * when it was woken: that is what it returns. */
static PyObject *
speedups_epoll_wait(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct epoll_event found[MAX_EVENTS];
    PyObject *list;
    long fd, timeout;
    int number = 1, i;

    if (count != 3) {
        return wrong_count("epoll_wait", 3);
    }
    fd = PyLong_AsLong(args[0]);
    timeout = PyLong_AsLong(args[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (timeout != 0) {
        Py_BEGIN_ALLOW_THREADS
        number = epoll_wait((int)fd, found, 1, (int)timeout);
        Py_END_ALLOW_THREADS
    }
    if (number > 0) {
        number = epoll_wait((int)fd, found, MAX_EVENTS, 0);
    }
    if (number < 0) {
        if (errno != EINTR) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        number = 0;
    }
    list = PyList_New(0);
    for (i = 0; list != NULL && i < number; i++) {
        PyObject *pair = find_owner(args[2], &found[i]);
        if (pair != NULL ? PyList_Append(list, pair) < 0 : PyErr_Occurred() != NULL) {
            Py_CLEAR(list);
        }
        Py_XDECREF(pair);
    }
    return list;
}

#endif

/* -- The module ------------------------------------------------------------ */

static PyMethodDef speedups_methods[] = {
    {"mask", (PyCFunction)(void (*)(void))speedups_mask, METH_FASTCALL, NULL},
    {"read_frames", (PyCFunction)(void (*)(void))speedups_read_frames, METH_FASTCALL, NULL},
    {"frame", (PyCFunction)(void (*)(void))speedups_frame, METH_FASTCALL, NULL},
#ifndef MS_WINDOWS
    {"receive", (PyCFunction)(void (*)(void))speedups_receive, METH_FASTCALL, NULL},
    {"receive_frames", (PyCFunction)(void (*)(void))speedups_receive_frames, METH_FASTCALL, NULL},
    {"send", (PyCFunction)(void (*)(void))speedups_send, METH_FASTCALL, NULL},
    {"send_frame", (PyCFunction)(void (*)(void))speedups_send_frame, METH_FASTCALL, NULL},
    {"send_many", (PyCFunction)(void (*)(void))speedups_send_many, METH_FASTCALL, NULL},
#endif
#ifdef __linux__
    {"epoll_wait", (PyCFunction)(void (*)(void))speedups_epoll_wait, METH_FASTCALL, NULL},
#endif
    {NULL, NULL, 0, NULL},
};

static int
speedups_exec(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&payload_spec);
    int result;

    if (type == NULL) {
        return -1;
    }
    result = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return result < 0 ? result : PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

/* Without Py_MOD_GIL_NOT_USED a free-threaded build turns its lock on. It has to:
 * what is done here to objects is guarded by that lock alone. SYNCWS_PURE=1
 * leaves this module aside, and the lock off. */
static PyModuleDef_Slot speedups_slots[] = {
    {Py_mod_exec, (void *)speedups_exec},
    {0, NULL},
};

static struct PyModuleDef speedups_module = {
    PyModuleDef_HEAD_INIT, "_speedups", NULL, 0, speedups_methods, speedups_slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&speedups_module);
}
