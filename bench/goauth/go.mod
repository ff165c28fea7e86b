module goauth

go 1.19
