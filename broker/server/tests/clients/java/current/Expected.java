//! What every client writes and reads back; the twin of python/expected.py, which explains it.

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import java.util.Objects;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;

final class Expected {
    static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    static final int PER_CODEC = 10;
    static final int COUNT = PER_CODEC * CODECS.length;
    static final long STEP_MS = 1000;

    interface Phase {
        void run(String bootstrap, String prefix, long baseMs) throws Exception;
    }

    interface Call {
        Object run() throws Exception;
    }

    /** Runs PROGRAM BOOTSTRAP PREFIX BASE_MS PHASE... */
    static void main(String[] args, Map<String, Phase> phases) throws Exception {
        for (String name : Arrays.copyOfRange(args, 3, args.length)) {
            phases.get(name).run(args[0], args[1], Long.parseLong(args[2]));
            System.out.println("passed: " + name);
        }
    }

    static byte[] key(int offset) {
        int i = offset % PER_CODEC;
        if (i == 0 || i == 8) {
            return null;
        }
        return i == 1 ? new byte[0] : bytes("key-" + CODECS[offset / PER_CODEC] + "-" + i);
    }

    static byte[] value(int offset) {
        int i = offset % PER_CODEC;
        if (i == 4 || i == 9) {
            return null;
        }
        if (i == 3) {
            return new byte[0];
        }
        byte[] head = bytes(CODECS[offset / PER_CODEC] + "-" + i + "-é中文-");
        byte[] all = Arrays.copyOf(head, head.length + 2 + i * 100);
        Arrays.fill(all, head.length, all.length, (byte) 'x');
        all[head.length] = 0;
        all[head.length + 1] = (byte) 0xff;
        return all;
    }

    static ProducerRecord<byte[], byte[]> record(String topic, int offset, long baseMs) {
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(
                topic, 0, baseMs + offset * STEP_MS, key(offset), value(offset));
        if (offset % PER_CODEC % 3 == 1) {
            record.headers().add("a", bytes("1")).add("a", bytes("2")).add("空", new byte[0]);
        } else if (offset % PER_CODEC % 3 == 2) {
            record.headers().add("h", new byte[] {0, (byte) 0xff});
        }
        return record;
    }

    static void equalRecord(ConsumerRecord<byte[], byte[]> actual, int offset, long baseMs) {
        ProducerRecord<byte[], byte[]> wanted = record(actual.topic(), offset, baseMs);
        String what = "record " + offset;
        equal(actual.offset(), (long) offset, what);
        equal(actual.timestamp(), wanted.timestamp(), what + ", time");
        equal(actual.timestampType().name, "CreateTime", what + ", time type");
        equal(Arrays.toString(actual.key()), Arrays.toString(wanted.key()), what + ", key");
        equal(Arrays.toString(actual.value()), Arrays.toString(wanted.value()), what + ", value");
        equal(text(actual.headers()), text(wanted.headers()), what + ", headers");
    }

    static String text(Iterable<Header> headers) {
        StringBuilder text = new StringBuilder();
        for (Header header : headers) {
            text.append(header.key()).append('=').append(Arrays.toString(header.value()));
        }
        return text.toString();
    }

    static void equal(Object actual, Object expected, String what) {
        if (!Objects.equals(actual, expected)) {
            throw new AssertionError(what + ":\n  is        " + actual
                    + "\n  should be " + expected);
        }
    }

    static void raises(String error, Call call, String what) {
        Object result;
        try {
            result = call.run();
        } catch (Exception e) {
            Throwable cause = e.getCause() == null ? e : e.getCause();
            equal(cause.getClass().getSimpleName(), error, what);
            return;
        }
        throw new AssertionError(what + ": no " + error + ", but " + result);
    }

    /** For what Apache Kafka does a moment after its answer, such as dropping a topic's name. */
    static void soon(Call holds, String what) throws Exception {
        soon(holds, 10, what);
    }

    static void soon(Call holds, int seconds, String what) throws Exception {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (!Boolean.TRUE.equals(holds.run())) {
            if (System.nanoTime() > end) {
                throw new AssertionError(what + ": not within " + seconds + " s");
            }
            Thread.sleep(50);
        }
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
