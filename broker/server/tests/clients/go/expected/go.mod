module millrace/expected

go 1.21
