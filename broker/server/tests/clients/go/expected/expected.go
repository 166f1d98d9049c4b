// Package expected is what every client writes and reads back; the twin of python/expected.py,
// which explains it.
package expected

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"time"
)

// Codecs in the order of their records in partition 0.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// The shape of the topic's content.
const (
	PerCodec = 10
	Count    = 50
	Step     = time.Second
)

// Header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Record that belongs at an offset.
type Record struct {
	Time    time.Time
	Key     []byte
	Value   []byte
	Headers []Header
}

// At gives the record of an offset.
func At(offset int, base time.Time) Record {
	codec, i := Codecs[offset/PerCodec], offset%PerCodec
	r := Record{Time: base.Add(time.Duration(offset) * Step)}
	switch i {
	case 0, 8:
	case 1:
		r.Key = []byte{}
	default:
		r.Key = []byte(fmt.Sprintf("key-%s-%d", codec, i))
	}
	switch i {
	case 4, 9:
	case 3:
		r.Value = []byte{}
	default:
		r.Value = append([]byte(fmt.Sprintf("%s-%d-é中文-\x00\xff", codec, i)),
			bytes.Repeat([]byte("x"), i*100)...)
	}
	switch i % 3 {
	case 1:
		r.Headers = []Header{{"a", []byte("1")}, {"a", []byte("2")}, {"空", []byte{}}}
	case 2:
		r.Headers = []Header{{"h", []byte{0, 0xff}}}
	}
	return r
}

// Equal ends the program when the two differ.
func Equal(actual, wanted interface{}, what string) {
	if !reflect.DeepEqual(actual, wanted) {
		Fail("%s:\n  is        %v\n  should be %v", what, actual, wanted)
	}
}

// Good ends the program when there is an error.
func Good(err error, what string) {
	if err != nil {
		Fail("%s: %v", what, err)
	}
}

// Fail ends the program.
func Fail(format string, arguments ...interface{}) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}

// Phase is one step of a program.
type Phase func(bootstrap, prefix string, base time.Time)

// Main runs PROGRAM BOOTSTRAP PREFIX BASE_MS PHASE...
func Main(phases map[string]Phase) {
	ms, err := strconv.ParseInt(os.Args[3], 10, 64)
	Good(err, "BASE_MS")
	for _, name := range os.Args[4:] {
		phase, known := phases[name]
		if !known {
			Fail("no phase %s", name)
		}
		phase(os.Args[1], os.Args[2], time.UnixMilli(ms))
		fmt.Println("passed:", name)
	}
}
