package main

import (
	"testing"
	"time"
)

func TestQuantilesAreNeverBetterThanWhatWas(t *testing.T) {
	h := &Histogram{}
	for i := 1; i <= 100000; i++ {
		h.Add(time.Duration(i) * time.Microsecond)
	}
	q := h.Quantiles()
	for _, each := range []struct{ got, real float64 }{{q.P50, 50000}, {q.P90, 90000}, {q.P99, 99000}, {q.P999, 99900}} {
		if each.got < each.real || each.got > each.real*65/64 {
			t.Errorf("%v for %v", each.got, each.real)
		}
	}
	if q.Max != 100000 {
		t.Errorf("max %v", q.Max)
	}
}

func TestBucketsJoin(t *testing.T) {
	for value := uint64(0); value < 1<<20; value++ {
		b := bucket(value)
		if value > upper(b) || (b > 0 && value <= upper(b-1)) {
			t.Fatalf("%d is not in bucket %d, %d to %d", value, b, upper(b-1)+1, upper(b))
		}
	}
	if last := bucket(1<<63 - 1); last >= 64*sub {
		t.Errorf("bucket %d", last)
	}
}

func TestAnswers(t *testing.T) {
	for text, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi":                     "200",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh":                      "more",
		"HTTP/1.1 200 OK\r\nContent-Le":                                      "more",
		"HTTP/1.1 204 No Content\r\n\r\n":                                    "204",
		"HTTP/1.1 503 Away\r\ncontent-length:0\r\nconnection: Close\r\n\r\n": "503 closes",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!":                    "error",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n":              "error",
		"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n":                     "error",
		"nonsense\r\n\r\n": "error",
	} {
		c := &connection{buffer: make([]byte, 1024)}
		c.filled = copy(c.buffer, text)
		got := "more"
		switch answer, err := c.answer(); {
		case err != nil:
			got = "error"
		case answer != nil:
			got = string([]byte{byte('0' + answer.status/100), byte('0' + answer.status/10%10), byte('0' + answer.status%10)})
			if answer.closes {
				got += " closes"
			}
		}
		if got != want {
			t.Errorf("%q: %s, not %s", text, got, want)
		}
	}
}
