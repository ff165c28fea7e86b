package main

import (
	"bytes"
	"errors"
)

// A connection has one request on it at most.
type connection struct {
	number  int32
	socket  int
	busy    bool
	arrival int // which request is on it
	buffer  []byte
	filled  int
	last    answer
}

type answer struct {
	status int
	closes bool
}

var (
	errFraming = errors.New("not an answer with a stated length")
	errSurplus = errors.New("more than one answer")

	blank, newline, colon  = []byte("\r\n\r\n"), []byte("\r\n"), []byte(":")
	contentLength, closing = []byte("content-length"), []byte("close")
	connectionField        = []byte("connection")
)

// answer takes one whole answer out of the buffer; nil while some of it is still to come. Only what the bench's own
// services send is understood: a stated length, or none where a status has no body.
func (c *connection) answer() (*answer, error) {
	got := c.buffer[:c.filled]
	end := bytes.Index(got, blank)
	if end < 0 {
		if c.filled == len(c.buffer) {
			return nil, errFraming
		}
		return nil, nil
	}
	head := got[:end+2]
	if len(head) < 14 || string(head[:7]) != "HTTP/1." {
		return nil, errFraming
	}
	status := number(head[9:12])
	if status < 200 {
		return nil, errFraming
	}
	length, stated := 0, status == 204 || status == 304
	closes := false
	_, rest, _ := bytes.Cut(head, newline)
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, newline)
		name, value, _ := bytes.Cut(line, colon)
		switch {
		case bytes.EqualFold(name, contentLength):
			if length = number(bytes.TrimSpace(value)); length < 0 {
				return nil, errFraming
			}
			stated = true
		case bytes.EqualFold(name, connectionField):
			closes = bytes.EqualFold(bytes.TrimSpace(value), closing)
		}
	}
	whole := end + len(blank) + length
	switch {
	case !stated || whole > len(c.buffer):
		return nil, errFraming
	case c.filled < whole:
		return nil, nil
	case c.filled > whole:
		return nil, errSurplus
	}
	c.filled = 0
	c.last = answer{status, closes}
	return &c.last, nil
}

// number reads digits; -1 where there is anything else.
func number(digits []byte) int {
	if len(digits) == 0 || len(digits) > 15 {
		return -1
	}
	n := 0
	for _, digit := range digits {
		if digit < '0' || digit > '9' {
			return -1
		}
		n = n*10 + int(digit-'0')
	}
	return n
}
