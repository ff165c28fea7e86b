package main

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets that are never wider than 1/64 of what is in them, from a nanosecond up; the
// shape of HdrHistogram. Adding costs a few instructions and no memory, whatever the duration.
type Histogram struct {
	buckets [64 * sub]int
	count   int
	sum     time.Duration
	max     time.Duration
}

const (
	subBits = 6
	sub     = 1 << subBits
)

// Quantiles are in microseconds.
type Quantiles struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// Add counts one duration; the clock never goes back, so it is at least nothing.
func (h *Histogram) Add(taken time.Duration) {
	if taken < 0 {
		taken = 0
	}
	h.buckets[bucket(uint64(taken))]++
	h.count++
	h.sum += taken
	if taken > h.max {
		h.max = taken
	}
}

func bucket(value uint64) int {
	shift := bits.Len64(value) - subBits - 1
	if shift < 0 {
		return int(value)
	}
	return (shift+1)*sub + int(value>>shift) - sub
}

// upper is the largest value of a bucket: what is told is never better than what was.
func upper(bucket int) uint64 {
	if bucket < sub {
		return uint64(bucket)
	}
	shift := bucket/sub - 1
	return (uint64(sub+bucket%sub)+1)<<shift - 1
}

func (h *Histogram) at(share float64) float64 {
	wanted, seen := int(share*float64(h.count)+0.5), 0
	for i, count := range h.buckets {
		if seen += count; count > 0 && seen >= wanted {
			return min(float64(upper(i)), float64(h.max)) / 1e3
		}
	}
	return float64(h.max) / 1e3
}

// Quantiles of everything that was added.
func (h *Histogram) Quantiles() Quantiles {
	if h.count == 0 {
		return Quantiles{}
	}
	mean := float64(h.sum) / float64(h.count) / 1e3
	return Quantiles{mean, h.at(0.5), h.at(0.9), h.at(0.99), h.at(0.999), float64(h.max) / 1e3}
}

func min(a, b float64) float64 {
	if a < b {
		return a
	}
	return b
}
